#include <stdexcept>
#include <string>
#include <vector>

#include "engine/model/architectures/architecture.h"
#include "engine/model/architectures/bailing.h"
#include "engine/model/architectures/bert.h"
#include "engine/model/architectures/bloom.h"
#include "engine/model/architectures/cohere.h"
#include "engine/model/architectures/corrected_experts.h"
#include "engine/model/architectures/dbrx.h"
#include "engine/model/architectures/deepseek.h"
#include "engine/model/architectures/deepseek_v4.h"
#include "engine/model/architectures/falcon.h"
#include "engine/model/architectures/fla.h"
#include "engine/model/architectures/gemma.h"
#include "engine/model/architectures/gemma3n.h"
#include "engine/model/architectures/gemma4.h"
#include "engine/model/architectures/glm.h"
#include "engine/model/architectures/gpt2.h"
#include "engine/model/architectures/gpt_neo.h"
#include "engine/model/architectures/gpt_neox.h"
#include "engine/model/architectures/gpt_oss.h"
#include "engine/model/architectures/gptj.h"
#include "engine/model/architectures/granite.h"
#include "engine/model/architectures/internlm.h"
#include "engine/model/architectures/irregular.h"
#include "engine/model/architectures/kda.h"
#include "engine/model/architectures/lfm.h"
#include "engine/model/architectures/llama.h"
#include "engine/model/architectures/llama4.h"
#include "engine/model/architectures/mamba.h"
#include "engine/model/architectures/mamba_hybrids.h"
#include "engine/model/architectures/minimax.h"
#include "engine/model/architectures/modernbert.h"
#include "engine/model/architectures/muse_glimmer.h"
#include "engine/model/architectures/nemotron.h"
#include "engine/model/architectures/olmo.h"
#include "engine/model/architectures/opt.h"
#include "engine/model/architectures/phi.h"
#include "engine/model/architectures/qwen.h"
#include "engine/model/architectures/qwen_next.h"
#include "engine/model/architectures/recurrent_gemma.h"
#include "engine/model/architectures/rwkv.h"
#include "engine/model/architectures/small_llamas.h"
#include "engine/model/architectures/stablelm.h"
#include "engine/model/architectures/starcoder.h"
#include "engine/model/architectures/unserved.h"
#include "engine/model/architectures/vision_language.h"
#include "engine/model/architectures/windowed_experts.h"
#include "engine/model/architectures/zamba.h"
#include "kernels/base/shown.h"
#include "kernels/base/usage.h"

namespace serval {
namespace {

constexpr const Architecture* kArchitectures[] = {&kLlama, &kDeciLM, &kOpenElm, &kMistral, &kMixtral, &kLlama4, &kLlama4Composite, &kDbrx, &kBailingMoe, &kBailingMoeV2,
                                                  &kInternLm2, &kQwen1, &kQwen2,
                                                  &kQwen3, &kGemma, &kGemma2,  &kGemma3,  &kGemma3Composite,
                                                  &kGemma3n, &kGemma3nComposite, &kGemma4, &kGemma4Composite, &kGemma4Unified,
                                                  &kPhi3,  &kGpt, &kGpt2,
                                                  &kQwen2Moe, &kQwen3Moe, &kDeepseekV2, &kDeepseekV3, &kDeepseekV32, &kDeepseekV4, &kGlmMoeDsa,
                                                  &kKimiK25, &kGlm4MoeLite, &kGlm4Moe, &kDots1, &kMiniMaxM2, &kMiniMaxM3, &kMimoV2,
                                                  &kGraniteMoe, &kGraniteMoeShared, &kOlmoe, &kHunYuanMoe,
                                                  &kAfmoe, &kExaoneMoe, &kSolarOpen, &kGptOss, &kPhiMoe, &kErnieMoe, &kHy3, &kMiniCpm3,
                                                  &kQwen3VlMoe,
                                                  &kQwen35Moe, &kQwen35MoeComposite,
                                                  &kGranite, &kOlmo,  &kOlmo2,   &kOlmo3,
                                                  &kGlm, &kGlm4, &kApertus, &kArcee, &kErnie45, &kHelium,
                                                  &kSeedOss, &kSmolLm3, &kCwm, &kVaultGemma, &kHunYuanDense, &kExaone4, &kMinistral,
                                                  &kLlava, &kLlavaNext, &kLlavaOnevision, &kAyaVision, &kVoxtral, &kQwen2Audio, &kInternVl, &kIdefics3, &kSmolVlm, &kGlm4v,
                                                  &kQwen2Vl, &kQwen25Vl, &kQwen3Vl, &kMinistral3, &kMistral3, &kMistral4, &kMllama, &kMuseGlimmer,
                                                  &kGptNeo, &kGptNeox, &kGptj, &kCodeGen, &kPhi, &kPersimmon, &kOpt, &kInt8Opt, &kBioGpt, &kXglm,
                                                  &kBloom, &kMpt, &kFalcon, &kGptBigCode, &kStarcoder2,
                                                  &kStableLm, &kCohere, &kCohere2, &kNemotron, &kJais2,
                                                  // States alone, and beside attention.
                                                  &kMamba, &kMamba2, &kFalconMamba, &kQwen3Next, &kKimiLinear, &kBailingHybrid, &kMiniMax,
                                                  &kQwen35, &kQwen35Composite, &kOlmoHybrid,
                                                  &kLfm2, &kLfm2Moe, &kLfm3, &kRecurrentGemma, &kBamba, &kGraniteHybrid, &kFalconH1, &kNemotronH, &kJamba, &kZamba, &kZamba2, &kRwkv, &kRwkv7, &kGla, &kRetNet,
                                                  // Encoders.
                                                  &kBert, &kDistilBert, &kRoberta, &kXlmRoberta, &kModernBert};

const Architecture& find_row(std::string_view Architecture::*key, std::string_view wanted, const char* what) {
  std::vector<std::string> supported;
  for (const Architecture* row : kArchitectures) {
    if (row->*key == wanted || (!row->old_name.empty() && row->old_name == wanted)) return *row;
    supported.emplace_back(row->*key);
  }
  const std::string sentence = "the " + std::string(what) + " " + in_quotes(wanted) + " is not supported";
  for (const Unserved& row : unserved_architectures()) {
    if (row.name == wanted || row.model_type == wanted) throw std::runtime_error(sentence + ": " + std::string(row.why));
  }
  throw std::runtime_error(sentence + did_you_mean(nearest_name(wanted, supported)) + "; serval models lists what is");
}

}  // namespace

std::span<const Architecture* const> architectures() {
  return kArchitectures;
}

const Architecture& find_architecture(std::string_view name) {
  return find_row(&Architecture::name, name, "architecture");
}

const Architecture& find_architecture_of_type(std::string_view model_type) {
  return find_row(&Architecture::model_type, model_type, "model_type");
}

}  // namespace serval
