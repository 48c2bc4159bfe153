#include "kernels/cuda/vendor_gemm.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <map>
#include <tuple>

#include "kernels/base/check.h"
#include "kernels/base/log.h"

namespace serval::cuda {
namespace {

// The library's functions that we call, by their own names.
struct Library {
  decltype(&::cublasLtCreate) create;
  decltype(&::cublasLtDestroy) destroy;
  decltype(&::cublasLtMatmulDescCreate) desc_create;
  decltype(&::cublasLtMatmulDescSetAttribute) desc_set;
  decltype(&::cublasLtMatrixLayoutCreate) layout_create;
  decltype(&::cublasLtMatmulPreferenceCreate) preference_create;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) preference_set;
  decltype(&::cublasLtMatmulPreferenceDestroy) preference_destroy;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) heuristic;
  decltype(&::cublasLtMatmul) matmul;
};

template <class Function>
bool find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  return function != nullptr;
}

bool load_library(Library& l) {
  void* const handle = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
  return handle != nullptr && find(handle, "cublasLtCreate", l.create) &&
         find(handle, "cublasLtDestroy", l.destroy) &&
         find(handle, "cublasLtMatmulDescCreate", l.desc_create) &&
         find(handle, "cublasLtMatmulDescSetAttribute", l.desc_set) &&
         find(handle, "cublasLtMatrixLayoutCreate", l.layout_create) &&
         find(handle, "cublasLtMatmulPreferenceCreate", l.preference_create) &&
         find(handle, "cublasLtMatmulPreferenceSetAttribute", l.preference_set) &&
         find(handle, "cublasLtMatmulPreferenceDestroy", l.preference_destroy) &&
         find(handle, "cublasLtMatmulAlgoGetHeuristic", l.heuristic) &&
         find(handle, "cublasLtMatmul", l.matmul);
}

void check(cublasStatus_t status, const char* call) {
  SERVAL_CHECK(status == CUBLAS_STATUS_SUCCESS, call, static_cast<int>(status));
}

cudaDataType_t type_of(DType type) {
  if (type == DType::kF32) return CUDA_R_32F;
  return type == DType::kF16 ? CUDA_R_16F : CUDA_R_16BF;
}

class LoadedGemm final : public VendorGemm {
 public:
  LoadedGemm(const Library& library, void* workspace) : lt_(library), workspace_(workspace) {
    check(lt_.create(&handle_), "cublasLtCreate");
  }
  ~LoadedGemm() override {
    lt_.destroy(handle_);
    free_device(workspace_);
  }

  bool multiply(Stream stream, DType type, DType out_type, const void* x, const void* weight, void* out,
                int m, int n, int k) override {
    const Plan& plan = plan_for({type, out_type, m, n, k});
    if (!plan.is_possible) return false;
    const float one = 1, zero = 0;
    check(
        lt_.matmul(handle_, plan.product, &one, weight, plan.weight, x, plan.x, &zero, out, plan.out, out,
                   plan.out, &plan.algorithm, workspace_, kWorkspaceBytes, static_cast<cudaStream_t>(stream)),
        "cublasLtMatmul");
    return true;
  }

 private:
  using Shape = std::tuple<DType, DType, int, int, int>;
  struct Plan {
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, x = nullptr, out = nullptr;
    cublasLtMatmulAlgo_t algorithm{};
    bool is_possible = false;
  };

  // The library thinks in columns: out^T [n, m] = weight [k, n]^T x^T [k, m].
  const Plan& plan_for(const Shape& shape) {
    const auto found = plans_.find(shape);
    if (found != plans_.end()) return found->second;
    const auto& [type, out_type, m, n, k] = shape;
    Plan plan;
    check(lt_.desc_create(&plan.product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "cublasLtMatmulDescCreate");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(lt_.desc_set(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed),
          "transpose");
    check(lt_.layout_create(&plan.weight, type_of(type), k, n, k), "layout of the weight");
    check(lt_.layout_create(&plan.x, type_of(type), k, m, k), "layout of x");
    check(lt_.layout_create(&plan.out, type_of(out_type), n, m, n), "layout of the product");
    cublasLtMatmulPreference_t preference = nullptr;
    check(lt_.preference_create(&preference), "cublasLtMatmulPreferenceCreate");
    const size_t bytes = kWorkspaceBytes;
    check(lt_.preference_set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes),
          "workspace");
    cublasLtMatmulHeuristicResult_t best{};
    int count = 0;
    const cublasStatus_t status = lt_.heuristic(handle_, plan.product, plan.weight, plan.x, plan.out,
                                                plan.out, preference, 1, &best, &count);
    plan.is_possible = status == CUBLAS_STATUS_SUCCESS && count > 0;
    plan.algorithm = best.algo;
    lt_.preference_destroy(preference);
    return plans_.emplace(shape, plan).first->second;
  }

  const Library lt_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_;
  std::map<Shape, Plan> plans_;
};

}  // namespace

std::unique_ptr<VendorGemm> VendorGemm::load() {
  Library library{};
  if (!load_library(library)) {
    const char* const reason = dlerror();
    log_warn("cuBLASLt is not there",
             {{"reason", reason != nullptr ? reason : "unknown"}, {"instead", "kernels of our own"}});
    return nullptr;
  }
  void* const workspace = allocate_device(kWorkspaceBytes);
  if (workspace == nullptr) return nullptr;
  return std::make_unique<LoadedGemm>(library, workspace);
}

}  // namespace serval::cuda
