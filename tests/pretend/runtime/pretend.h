/* What the files of the pretended CUDA share.
 *
 * A CUDA runtime that owns no GPU: memory is host memory, copies are real, kernels do nothing.
 * Preloaded, it makes PyTorch's CUDA build run its own CUDA code - device checks, allocators,
 * streams, launches - on a machine without a driver, counts what is asked of the device, and
 * reports every call that would make the host wait.
 *
 * The functions have the names and arguments of CUDA's public interfaces; handles are opaque to
 * PyTorch and therefore void * here. A function that PyTorch calls and that is not here is looked
 * up in NVIDIA's library, which fails without a driver: that is how a missing one shows.
 */
#pragma once

#define _GNU_SOURCE
#include <driver_types.h>
#include <stddef.h>
#include <stdint.h>
#include <vector_types.h>

typedef unsigned long long u64;

/* seen by our files alone; the names of other libraries' functions are not to be taken */
#define PRIVATE __attribute__((visibility("hidden")))

enum {
    OK = 0,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    IS_CAPTURING = 900,
    CAPTURE_INVALIDATED = 901
};

/* ---------------------------------------------------------------- events
 * In the order of KINDS in tests/pretend/events.py. */
enum {
    LAUNCH,
    SYNC,
    COPY_H2D,
    COPY_H2D_PAGEABLE,
    COPY_D2H,
    COPY_D2H_PAGEABLE,
    COPY_D2D,
    MEMSET,
    LIBRARY,
    NCCL,
    MALLOC,
    PINNED,
    TF32,
    NUM_KINDS
};
PRIVATE void event(int kind, const char *name, u64 size);

/* ---------------------------------------------------------------- memory */
enum { PAGEABLE = 0, PINNED_HOST = 1, DEVICE = 2 }; /* values of cudaMemoryType */
PRIVATE int type_of(const void *pointer);
PRIVATE u64 total_memory(void);
/* whether large blocks of device memory stay untouched, as nobody reads them */
PRIVATE int is_lazy(void);

/* ---------------------------------------------------------------- handles */
PRIVATE void *new_handle(void);
/* what a call returns that a capture forbids, which is then invalid; OK outside of one */
PRIVATE int unless_capturing(void);

/* a function that has nothing to do, and one whose call is counted as work for the device */
#define NOTHING(name)                                                                              \
    int name() { return OK; }
#define WORK(name)                                                                                 \
    int name() {                                                                                   \
        event(LIBRARY, #name, 0);                                                                  \
        return OK;                                                                                 \
    }
#define MAKE(name)                                                                                 \
    int name(void **handle) {                                                                      \
        *handle = new_handle();                                                                    \
        return OK;                                                                                 \
    }
