#include "engine/model/architectures/unserved.h"

namespace serval {
namespace {

constexpr std::string_view kEncoder = "it is an encoder, which reads text and writes none";
constexpr std::string_view kEncoderDecoder = "it is an encoder with a decoder; decoders alone are served";
constexpr std::string_view kSpeech = "it writes down speech; text goes in here";
constexpr std::string_view kAnyOrder = "it reads words in any order, with two streams of attention";
constexpr std::string_view kRecurrence = "its recurrence is not written yet";
constexpr std::string_view kSharedBlocks = "blocks that several layers share are not written yet";
constexpr std::string_view kUnchecked =
    "the layout of its published checkpoints is not checked against a reference";
constexpr std::string_view kIndexed = "its attention to the positions that an index chooses is not built";
constexpr std::string_view kSeveralResiduals = "its updates of several residuals in turn are not built";

constexpr Unserved kUnserved[] = {
    {"BertForMaskedLM", "bert", kEncoder},
    {"BertModel", "bert", kEncoder},
    {"DebertaV2ForMaskedLM", "deberta-v2", kEncoder},
    {"ModernBertForMaskedLM", "modernbert", kEncoder},
    {"RobertaForMaskedLM", "roberta", kEncoder},
    {"XLMRobertaModel", "xlm-roberta", kEncoder},
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
    {"RecurrentGemmaForCausalLM", "recurrent_gemma", kRecurrence},
    {"RwkvForCausalLM", "rwkv", kRecurrence},
    {"GLAForCausalLM", "gla", kUnchecked},
    {"RWKV7ForCausalLM", "rwkv7", kUnchecked},
    {"RetNetForCausalLM", "retnet", kUnchecked},
    {"ZambaForCausalLM", "zamba", kSharedBlocks},
    {"Zamba2ForCausalLM", "zamba2", kSharedBlocks},
    // Not yet.
    {"DeepseekV4ForCausalLM", "deepseek_v4", kIndexed},
    {"Gemma3nForCausalLM", "gemma3n_text", kSeveralResiduals},
    {"Gemma3nForConditionalGeneration", "gemma3n", kSeveralResiduals},
    {"MiniMaxM3SparseForConditionalGeneration", "minimax_m3_vl", "its sparse attention is not built"},
};

}  // namespace

std::span<const Unserved> unserved_architectures() {
  return kUnserved;
}

}  // namespace serval
