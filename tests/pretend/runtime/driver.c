/* The driver (libcuda), as far as PyTorch asks it; the library takes the driver's place by name. */
#include "pretend.h"
#include <string.h>

int cudaDeviceGetAttribute(int *value, int attribute, int index);
int cudaDriverGetVersion(int *version);
int cudaGetDevice(int *index);

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *is_active) {
    *flags = 0;
    *is_active = 1;
    return OK;
}
int cuGetErrorString(int error, const char **text) {
    *text = "pretended";
    return OK;
}
int cuDriverGetVersion(int *version) { return cudaDriverGetVersion(version); }
int cuCtxGetDevice(int *device) { return cudaGetDevice(device); }
int cuDeviceGet(int *device, int index) {
    *device = index;
    return OK;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    return cudaDeviceGetAttribute(value, attribute, device);
}
int cuPointerGetAttribute(void **value, int attribute, void *pointer) {
    *value = new_handle();
    return OK;
}
int cuCtxGetLimit(size_t *value, int limit) {
    *value = 0;
    return OK;
}
MAKE(cuCtxGetCurrent)
NOTHING(cuCtxSetLimit)
NOTHING(cuInit)
NOTHING(cuCtxSetCurrent)
NOTHING(cuDevicePrimaryCtxRetain)

/* ---------------------------------------------------------------- kernels compiled when first used
 */
MAKE(cuModuleLoadData)
MAKE(cuModuleGetFunction)
int cuLaunchKernel() {
    event(LAUNCH, "cuLaunchKernel", 0);
    return OK;
}
int cuLaunchKernelEx() { /* Triton's */
    event(LAUNCH, "cuLaunchKernelEx", 0);
    return OK;
}
int cuLaunchCooperativeKernel() {
    event(LAUNCH, "cuLaunchCooperativeKernel", 0);
    return OK;
}
int cuFuncGetAttribute(int *value, int attribute, void *function) {
    *value = attribute == 0 ? 1024 : 0; /* the first is the most threads of a block */
    return OK;
}
NOTHING(cuFuncSetAttribute)
NOTHING(cuFuncSetCacheConfig)
NOTHING(cuLinkAddData_v2)
NOTHING(cuLinkComplete)
NOTHING(cuLinkCreate_v2)
NOTHING(cuModuleLoad)
NOTHING(cuModuleLoadDataEx)
NOTHING(cuModuleUnload)
NOTHING(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOTHING(cuTensorMapEncodeTiled)

/* ---------------------------------------------------------------- functions asked for by name */
static int do_nothing() { return OK; }

static const struct {
    const char *name;
    void *function;
} entry_points[] = {
    {"cuCtxGetCurrent", cuCtxGetCurrent},
    {"cuDeviceGet", cuDeviceGet},
    {"cuDeviceGetAttribute", cuDeviceGetAttribute},
    {"cuDevicePrimaryCtxGetState", cuDevicePrimaryCtxGetState},
    {"cuGetErrorString", cuGetErrorString},
};

int cudaGetDriverEntryPoint(const char *name, void **function, u64 flags, int *status) {
    *function = do_nothing;
    for (size_t i = 0; i < sizeof entry_points / sizeof *entry_points; i++)
        if (!strcmp(name, entry_points[i].name)) *function = entry_points[i].function;
    if (status) *status = OK;
    return OK;
}
int cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version, u64 flags,
                                     int *status) {
    return cudaGetDriverEntryPoint(name, function, flags, status);
}
