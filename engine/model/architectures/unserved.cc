#include "engine/model/architectures/unserved.h"

namespace serval {
namespace {

constexpr std::string_view kEncoder = "of encoders, BERT's, DistilBERT's, ModernBERT's and RoBERTa's are served";
constexpr std::string_view kEncoderDecoder = "it is an encoder with a decoder; decoders alone are served";
constexpr std::string_view kSpeech = "it writes down speech; text goes in here";
constexpr std::string_view kAnyOrder = "it reads words in any order, with two streams of attention";

constexpr Unserved kUnserved[] = {
    {"DebertaV2ForMaskedLM", "deberta-v2", kEncoder},
    {"BartForConditionalGeneration", "bart", kEncoderDecoder},
    {"M2M100ForConditionalGeneration", "m2m_100", kEncoderDecoder},
    {"MarianMTModel", "marian", kEncoderDecoder},
    {"MBartForConditionalGeneration", "mbart", kEncoderDecoder},
    {"MT5ForConditionalGeneration", "mt5", kEncoderDecoder},
    {"PegasusForConditionalGeneration", "pegasus", kEncoderDecoder},
    {"T5ForConditionalGeneration", "t5", kEncoderDecoder},
    {"UMT5ForConditionalGeneration", "umt5", kEncoderDecoder},
    {"WhisperForConditionalGeneration", "whisper", kSpeech},
    {"XLNetLMHeadModel", "xlnet", kAnyOrder},
};

}  // namespace

std::span<const Unserved> unserved_architectures() {
  return kUnserved;
}

}  // namespace serval
