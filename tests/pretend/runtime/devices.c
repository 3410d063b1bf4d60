/* The devices that are seen: as many H100s as PRETEND_CUDA_DEVICES says, one without it. */
#include "pretend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_THREADS 1024
#define BLOCK_SHARED_MEMORY 49152
#define BLOCK_SHARED_MEMORY_OPTIN 232448
#define SM_SHARED_MEMORY 233472
#define SM_THREADS 2048
#define SM_BLOCKS 32
#define NUM_SMS 132
#define NUM_REGISTERS 65536
#define WARP 32
#define L2_CACHE (50 << 20)
#define GRID_X 2147483647
#define GRID_YZ 65535
#define CAPABILITY_MAJOR 9
#define CAPABILITY_MINOR 0

static __thread int device;

static int num_devices(void) {
    const char *given = getenv("PRETEND_CUDA_DEVICES");
    return given ? atoi(given) : 1;
}

int cudaGetDeviceCount(int *count) {
    *count = num_devices();
    return *count ? OK : NO_DEVICE;
}
int cudaGetDevice(int *index) {
    *index = device;
    return OK;
}
int cudaSetDevice(int index) {
    if (index < 0 || index >= num_devices()) return INVALID_DEVICE;
    device = index;
    return OK;
}
int cudaDeviceSynchronize(void) {
    event(SYNC, "cudaDeviceSynchronize", 0);
    return unless_capturing();
}

/* ---------------------------------------------------------------- what they are */
int cudaDriverGetVersion(int *version) {
    *version = PRETENDED_VERSION;
    return OK;
}
int cudaRuntimeGetVersion(int *version) {
    *version = PRETENDED_VERSION;
    return OK;
}

int cudaGetDeviceProperties(struct cudaDeviceProp *p, int index) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Pretended H100");
    p->totalGlobalMem = total_memory();
    p->major = CAPABILITY_MAJOR;
    p->minor = CAPABILITY_MINOR;
    p->multiProcessorCount = NUM_SMS;
    p->warpSize = WARP;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = BLOCK_THREADS;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = GRID_X;
    p->maxGridSize[1] = p->maxGridSize[2] = GRID_YZ;
    p->maxThreadsPerMultiProcessor = SM_THREADS;
    p->maxBlocksPerMultiProcessor = SM_BLOCKS;
    p->sharedMemPerBlock = BLOCK_SHARED_MEMORY;
    p->sharedMemPerBlockOptin = BLOCK_SHARED_MEMORY_OPTIN;
    p->sharedMemPerMultiprocessor = SM_SHARED_MEMORY;
    p->regsPerBlock = p->regsPerMultiprocessor = NUM_REGISTERS;
    p->totalConstMem = 65536;
    p->memPitch = 2147483647;
    p->memoryBusWidth = 5120;
    p->l2CacheSize = L2_CACHE;
    p->textureAlignment = 512;
    p->concurrentKernels = p->unifiedAddressing = p->cooperativeLaunch = 1;
    return OK;
}
/* its name before CUDA 13 */
int cudaGetDeviceProperties_v2(struct cudaDeviceProp *p, int index) {
    return cudaGetDeviceProperties(p, index);
}

int cudaDeviceGetAttribute(int *value, int attribute, int index) {
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: *value = BLOCK_THREADS; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = GRID_X; break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: *value = GRID_YZ; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = BLOCK_SHARED_MEMORY; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = BLOCK_SHARED_MEMORY_OPTIN; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = SM_SHARED_MEMORY; break;
    case cudaDevAttrWarpSize: *value = WARP; break;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: *value = NUM_REGISTERS; break;
    case cudaDevAttrMultiProcessorCount: *value = NUM_SMS; break;
    case cudaDevAttrL2CacheSize: *value = L2_CACHE; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = SM_THREADS; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = SM_BLOCKS; break;
    case cudaDevAttrComputeCapabilityMajor: *value = CAPABILITY_MAJOR; break;
    case cudaDevAttrComputeCapabilityMinor: *value = CAPABILITY_MINOR; break;
    default: *value = 0;
    }
    return OK;
}

int cudaDeviceGetPCIBusId(char *text, int size, int index) {
    snprintf(text, size, "0000:%02x:00.0", index + 1);
    return OK;
}
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return OK;
}
int cudaDeviceCanAccessPeer(int *can, int index, int peer) {
    *can = 1;
    return OK;
}
NOTHING(cudaDeviceEnablePeerAccess)

/* ---------------------------------------------------------------- memory pools */
int cudaDeviceGetDefaultMemPool(void **pool, int index) {
    *pool = new_handle();
    return OK;
}
int cudaMemPoolGetAttribute(void *pool, int attribute, u64 *value) {
    *value = 0;
    return OK;
}
int cudaDeviceGetGraphMemAttribute(int index, int attribute, u64 *value) {
    *value = 0;
    return OK;
}
NOTHING(cudaDeviceSetGraphMemAttribute)
NOTHING(cudaMemPoolSetAccess)
NOTHING(cudaMemPoolSetAttribute)
NOTHING(cudaMemPoolTrimTo)

/* ---------------------------------------------------------------- errors */
NOTHING(cudaGetLastError)
NOTHING(cudaPeekAtLastError)
const char *cudaGetErrorName(int error) {
    switch (error) {
    case OK: return "cudaSuccess";
    case OUT_OF_MEMORY: return "cudaErrorMemoryAllocation";
    case IS_CAPTURING: return "cudaErrorStreamCaptureUnsupported";
    case CAPTURE_INVALIDATED: return "cudaErrorStreamCaptureInvalidated";
    default: return "cudaErrorPretended";
    }
}
const char *cudaGetErrorString(int error) {
    switch (error) {
    case OK: return "no error";
    case OUT_OF_MEMORY: return "out of memory";
    case INVALID_DEVICE: return "invalid device ordinal";
    case IS_CAPTURING: return "operation not permitted when stream is capturing";
    case CAPTURE_INVALIDATED: return "operation failed due to a previous error during capture";
    default: return "pretended error";
    }
}
NOTHING(cudaProfilerStart)
NOTHING(cudaProfilerStop)
