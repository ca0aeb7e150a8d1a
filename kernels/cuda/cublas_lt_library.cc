// The functions of cuBLASLt that this project calls, each passed on to the library, which is opened
// at the first call. Linked in the ordinary way its relocations alone would add more than 100 MiB to
// every process, those that never see a GPU included, and nothing would start where it is missing.
#include <cublasLt.h>
#include <dlfcn.h>

#include <string>

namespace {

#define MILLRACE_TEXT_(x) #x
#define MILLRACE_TEXT(x) MILLRACE_TEXT_(x)
constexpr const char* kSoname = "libcublasLt.so." MILLRACE_TEXT(CUBLAS_VER_MAJOR);

// Never closed: CUDA libraries do not survive that. Null: not found where the loader looks, nor in
// the toolkit this was built with.
void* Library() {
  static void* const library = [] {
    void* found = dlopen(kSoname, RTLD_NOW | RTLD_LOCAL);
    if (found == nullptr) {
      const std::string path = std::string(MILLRACE_CUDA_LIBRARY_DIR "/") + kSoname;
      found = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    return found;
  }();
  return library;
}

void* Symbol(const char* name) {
  void* const library = Library();
  return library == nullptr ? nullptr : dlsym(library, name);
}

template <typename Function, typename... Args>
auto Call(Function* function, Args... args) {
  using Result = decltype(function(args...));
  if constexpr (std::is_same_v<Result, cublasStatus_t>) {
    return function == nullptr ? CUBLAS_STATUS_NOT_INITIALIZED : function(args...);
  } else {
    return function == nullptr ? "libcublasLt is not installed" : function(args...);
  }
}

}  // namespace

#define MILLRACE_LT(name, ...)                                                         \
  {                                                                                    \
    static auto* const function = reinterpret_cast<decltype(&name)>(Symbol(#name));    \
    return Call(function, __VA_ARGS__);                                                \
  }

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) MILLRACE_LT(cublasLtCreate, handle)
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) MILLRACE_LT(cublasLtDestroy, handle)
const char* cublasLtGetStatusName(cublasStatus_t s) MILLRACE_LT(cublasLtGetStatusName, s)
const char* cublasLtGetStatusString(cublasStatus_t s) MILLRACE_LT(cublasLtGetStatusString, s)
cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* d, cublasComputeType_t c,
                                        cudaDataType_t t)
    MILLRACE_LT(cublasLtMatmulDescCreate, d, c, t)
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d)
    MILLRACE_LT(cublasLtMatmulDescDestroy, d)
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d,
                                              cublasLtMatmulDescAttributes_t a, const void* p,
                                              size_t n)
    MILLRACE_LT(cublasLtMatmulDescSetAttribute, d, a, p, n)
cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* l, cudaDataType t, uint64_t rows,
                                          uint64_t cols, int64_t ld)
    MILLRACE_LT(cublasLtMatrixLayoutCreate, l, t, rows, cols, ld)
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l)
    MILLRACE_LT(cublasLtMatrixLayoutDestroy, l)
cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* p)
    MILLRACE_LT(cublasLtMatmulPreferenceCreate, p)
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p)
    MILLRACE_LT(cublasLtMatmulPreferenceDestroy, p)
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t a,
                                                    const void* b, size_t n)
    MILLRACE_LT(cublasLtMatmulPreferenceSetAttribute, p, a, b, n)
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
    cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t o, cublasLtMatmulPreference_t p, int n,
    cublasLtMatmulHeuristicResult_t results[], int* count)
    MILLRACE_LT(cublasLtMatmulAlgoGetHeuristic, h, d, a, b, c, o, p, n, results, count)
cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t la, const void* b,
                              cublasLtMatrixLayout_t lb, const void* beta, const void* c,
                              cublasLtMatrixLayout_t lc, void* o, cublasLtMatrixLayout_t lo,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace, size_t size,
                              cudaStream_t stream)
    MILLRACE_LT(cublasLtMatmul, h, d, alpha, a, la, b, lb, beta, c, lc, o, lo, algorithm, workspace,
                size, stream)

}  // extern "C"
