/* cuBLAS, cuBLASLt and cuDNN: every call that would compute is counted, and computes nothing. */
#include "pretend.h"
#include <string.h>

/* ---------------------------------------------------------------- cuBLAS */
MAKE(cublasCreate_v2)
enum { CUBLAS_TF32_MATH = 3, CUBLAS_TF32_COMPUTE = 77 };
int cublasSetMathMode(void *handle, int mode) {
    if (mode == CUBLAS_TF32_MATH) event(TF32, "cublasSetMathMode", 0);
    return OK;
}
int cublasGetMathMode(void *handle, int *mode) {
    *mode = 0;
    return OK;
}
int cublasGetPointerMode_v2(void *handle, int *mode) {
    *mode = 0;
    return OK;
}
NOTHING(cublasDestroy_v2)
NOTHING(cublasSetPointerMode_v2)
NOTHING(cublasSetSmCountTarget)
NOTHING(cublasSetStream_v2)
NOTHING(cublasSetWorkspace_v2)
WORK(cublasSgemm_v2)
WORK(cublasDgemm_v2)
WORK(cublasGemmEx)
WORK(cublasSgemmEx)
WORK(cublasSgemmStridedBatched)
WORK(cublasDgemmStridedBatched)
WORK(cublasGemmStridedBatchedEx)
WORK(cublasSgemv_v2)
WORK(cublasDgemv_v2)
WORK(cublasSdot_v2)
WORK(cublasDdot_v2)
WORK(cublasDotEx)

/* ---------------------------------------------------------------- cuBLASLt */
int cublasLtMatmulDescCreate(void **handle, int compute_type, int scale_type) {
    if (compute_type == CUBLAS_TF32_COMPUTE) event(TF32, "cublasLtMatmulDescCreate", 0);
    *handle = new_handle();
    return OK;
}
MAKE(cublasLtMatmulPreferenceCreate)
MAKE(cublasLtMatrixLayoutCreate)
NOTHING(cublasLtMatmulDescDestroy)
NOTHING(cublasLtMatmulDescSetAttribute)
NOTHING(cublasLtMatmulPreferenceDestroy)
NOTHING(cublasLtMatmulPreferenceSetAttribute)
NOTHING(cublasLtMatrixLayoutDestroy)
NOTHING(cublasLtMatrixLayoutSetAttribute)

/* cublasLtMatmulHeuristicResult_t: opaque algorithm, workspace, state, waves, reserved */
typedef struct {
    u64 algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} Heuristic;
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c,
                                   void *d, void *preference, int num, Heuristic *results,
                                   int *num_found) {
    if (num > 0) memset(results, 0, sizeof *results);
    *num_found = num > 0;
    return OK;
}
WORK(cublasLtMatmul)

/* ---------------------------------------------------------------- cuDNN
 * Its older interface, which PyTorch takes with TORCH_CUDNN_V8_API_DISABLED=1. */
MAKE(cudnnCreate)
MAKE(cudnnCreateTensorDescriptor)
MAKE(cudnnCreateFilterDescriptor)
MAKE(cudnnCreateConvolutionDescriptor)
MAKE(cudnnCreateActivationDescriptor)
NOTHING(cudnnSetStream)
NOTHING(cudnnSetTensorNdDescriptor)
NOTHING(cudnnSetFilterNdDescriptor)
NOTHING(cudnnSetConvolutionNdDescriptor)
NOTHING(cudnnSetConvolutionGroupCount)
NOTHING(cudnnSetConvolutionMathType)
NOTHING(cudnnSetActivationDescriptor)
NOTHING(cudnnDestroyTensorDescriptor)
NOTHING(cudnnDestroyFilterDescriptor)
NOTHING(cudnnDestroyConvolutionDescriptor)
NOTHING(cudnnDestroyActivationDescriptor)
WORK(cudnnConvolutionForward)
WORK(cudnnConvolutionBackwardData)
WORK(cudnnConvolutionBackwardFilter)
WORK(cudnnConvolutionBiasActivationForward)

/* cudnnConvolution{Fwd,BwdData,BwdFilter}AlgoPerf_t; the one algorithm found needs no workspace */
typedef struct {
    int algorithm, status;
    float time;
    size_t memory;
    int is_deterministic, math_type, reserved[3];
} Algorithm;

static int find_one(int *num_found, Algorithm *found) {
    memset(found, 0, sizeof *found);
    found->algorithm = 1;
    found->is_deterministic = 1;
    found->math_type = 3; /* CUDNN_FMA_MATH */
    *num_found = 1;
    return OK;
}

/* by a rule, and by trying (cudnn.benchmark) */
#define FINDERS(Direction)                                                                         \
    int cudnnGetConvolution##Direction##Algorithm_v7(void *handle, void *a, void *b, void *c,      \
                                                     void *d, int num, int *num_found,             \
                                                     Algorithm *found) {                           \
        return find_one(num_found, found);                                                         \
    }                                                                                              \
    int cudnnFindConvolution##Direction##AlgorithmEx(                                              \
        void *handle, void *a, void *a_data, void *b, void *b_data, void *c, void *d,              \
        void *d_data, int num, int *num_found, Algorithm *found, void *workspace, size_t size) {   \
        return find_one(num_found, found);                                                         \
    }                                                                                              \
    int cudnnGetConvolution##Direction##WorkspaceSize(void *handle, void *a, void *b, void *c,     \
                                                      void *d, int algorithm, size_t *size) {      \
        *size = 0;                                                                                 \
        return OK;                                                                                 \
    }
FINDERS(Forward)
FINDERS(BackwardData)
FINDERS(BackwardFilter)
