/* Kernels: the names that PyTorch's libraries register, and launches, which do nothing. */
#include "pretend.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- names
 * An open hash table from the host's stub of a kernel to its mangled name. */
typedef struct {
    const void *stub;
    const char *name;
} Kernel;
static Kernel *kernels;
static size_t num_slots, num_kernels;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static Kernel *slot_of(const void *stub) {
    size_t i = ((uintptr_t)stub >> 4) % num_slots;
    while (kernels[i].stub && kernels[i].stub != stub)
        i = (i + 1) % num_slots;
    return &kernels[i];
}

static const char *name_of(const void *stub) {
    const char *name = num_slots ? slot_of(stub)->name : 0;
    return name ? name : "?";
}

static void grow(void) {
    Kernel *old = kernels;
    size_t num_old = num_slots;
    num_slots = num_old ? num_old * 2 : 1 << 16;
    kernels = calloc(num_slots, sizeof *kernels);
    for (size_t i = 0; i < num_old; i++)
        if (old[i].stub) *slot_of(old[i].stub) = old[i];
    free(old);
}

void __cudaRegisterFunction(void **binary, const char *stub, char *device_name, const char *name,
                            int thread_limit, void *thread, void *block, void *block_dim,
                            void *grid_dim, int *warp_size) {
    pthread_mutex_lock(&lock);
    if (num_kernels * 2 >= num_slots) grow();
    *slot_of(stub) = (Kernel){stub, name};
    num_kernels++;
    pthread_mutex_unlock(&lock);
}
void **__cudaRegisterFatBinary(void *binary) {
    static void *handle[1];
    return handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterVar() {}
char __cudaInitModule(void **handle) { return 0; }
int __cudaGetKernel(void **kernel, const void *stub) {
    *kernel = (void *)stub;
    return OK;
}

/* ---------------------------------------------------------------- launches */
static __thread struct {
    struct dim3 grid, block;
    size_t shared_memory;
    void *stream;
} configuration;
unsigned __cudaPushCallConfiguration(struct dim3 grid, struct dim3 block, size_t shared_memory,
                                     void *stream) {
    configuration.grid = grid;
    configuration.block = block;
    configuration.shared_memory = shared_memory;
    configuration.stream = stream;
    return OK;
}
int __cudaPopCallConfiguration(struct dim3 *grid, struct dim3 *block, size_t *shared_memory,
                               void **stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared_memory = configuration.shared_memory;
    *stream = configuration.stream;
    return OK;
}

int cudaLaunchKernel(const void *stub, struct dim3 grid, struct dim3 block, void **arguments,
                     size_t shared_memory, void *stream) {
    event(LAUNCH, name_of(stub), (u64)grid.x * grid.y * grid.z);
    return OK;
}
int __cudaLaunchKernel(const void *stub, struct dim3 grid, struct dim3 block, void **arguments,
                       size_t shared_memory, void *stream) {
    return cudaLaunchKernel(stub, grid, block, arguments, shared_memory, stream);
}
int cudaLaunchCooperativeKernel(const void *stub, struct dim3 grid, struct dim3 block,
                                void **arguments, size_t shared_memory, void *stream) {
    return cudaLaunchKernel(stub, grid, block, arguments, shared_memory, stream);
}
int cudaLaunchKernelExC(const void *config, const void *stub, void **arguments) {
    event(LAUNCH, name_of(stub), 0);
    return OK;
}

/* ---------------------------------------------------------------- what is asked of them */
int cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *stub) {
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = 1024;
    attributes->maxDynamicSharedSizeBytes = 232448;
    attributes->numRegs = 32;
    attributes->ptxVersion = attributes->binaryVersion = 90;
    return OK;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *stub, int block_size,
                                                  size_t shared_memory) {
    *count = 2;
    return OK;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *stub,
                                                           int block_size, size_t shared_memory,
                                                           unsigned flags) {
    *count = 2;
    return OK;
}
NOTHING(cudaFuncSetAttribute)
NOTHING(cudaKernelSetAttributeForDevice)
int cudaLibraryGetKernel(void **kernel, void *library, const char *name) {
    *kernel = new_handle();
    return OK;
}
MAKE(cudaLibraryLoadData)
NOTHING(cudaLibraryUnload)
