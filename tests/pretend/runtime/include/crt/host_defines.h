/* The annotations of CUDA's headers, for a C compiler: PyTorch's wheels do not ship this one. */
#define __device_builtin__
#define __cudart_builtin__
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __host__
#define __device__
#define __align__(n) __attribute__((aligned(n)))
#define __location__(a)
#define CUDARTAPI
#define CUDART_CB
