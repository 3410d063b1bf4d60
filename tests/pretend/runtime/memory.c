/* Device memory, pinned memory, and copies between them. */
#include "pretend.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int cudaGetDevice(int *index);

/* Device memory and pinned memory lie in two reserved spans, so that a pointer tells its kind.
 * Addresses are never used twice: a freed block faults when it is read. */
#define SPAN (1ull << 44)
#define PAGE 4096ull
enum { IN_DEVICE, IN_PINNED, NUM_SPANS };
static char *span[NUM_SPANS];
static u64 used[NUM_SPANS];
static u64 allocated;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void reserve(void) {
    for (int i = 0; i < NUM_SPANS; i++)
        span[i] = mmap(0, SPAN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

int type_of(const void *pointer) {
    const char *p = pointer;
    if (p >= span[IN_DEVICE] && p < span[IN_DEVICE] + SPAN) return DEVICE;
    if (p >= span[IN_PINNED] && p < span[IN_PINNED] + SPAN) return PINNED_HOST;
    return PAGEABLE;
}

u64 total_memory(void) {
    const char *given = getenv("PRETEND_CUDA_MEMORY");
    return given ? strtoull(given, 0, 10) : 80ull << 30;
}

int is_lazy(void) { return getenv("PRETEND_LAZY") != 0; }

/* ---------------------------------------------------------------- blocks
 * Sizes of the blocks, in chains by their address. */
typedef struct Block {
    char *start;
    u64 size;
    struct Block *next;
} Block;
#define NUM_CHAINS 4096
static Block *chains[NUM_CHAINS];

static Block **chain_of(void *start) { return &chains[((uintptr_t)start / PAGE) % NUM_CHAINS]; }

static void remember(char *start, u64 size) {
    Block *block = malloc(sizeof *block), **chain = chain_of(start);
    *block = (Block){start, size, *chain};
    *chain = block;
}

static u64 forget(void *start) {
    for (Block **at = chain_of(start); *at; at = &(*at)->next) {
        Block *block = *at;
        if (block->start != start) continue;
        u64 size = block->size;
        *at = block->next;
        free(block);
        return size;
    }
    return 0;
}

static int take(int where, void **pointer, u64 num_bytes) {
    u64 size = num_bytes ? (num_bytes + PAGE - 1) / PAGE * PAGE : PAGE;
    int status = OUT_OF_MEMORY;
    *pointer = 0;
    pthread_mutex_lock(&lock);
    int fits = where != IN_DEVICE || allocated + size <= total_memory();
    if (fits && used[where] + size + PAGE <= SPAN) {
        char *start = span[where] + used[where];
        used[where] += size + PAGE; /* a hole after each block */
        mprotect(start, size, PROT_READ | PROT_WRITE);
        remember(start, size);
        if (where == IN_DEVICE) allocated += size;
        *pointer = start;
        status = OK;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static int give_back(int where, void *pointer) {
    pthread_mutex_lock(&lock);
    u64 size = pointer ? forget(pointer) : 0;
    if (size) {
        madvise(pointer, size, MADV_DONTNEED);
        mprotect(pointer, size, PROT_NONE);
        if (where == IN_DEVICE) allocated -= size;
    }
    pthread_mutex_unlock(&lock);
    return OK;
}

int cudaMalloc(void **pointer, size_t size) {
    event(MALLOC, "cudaMalloc", size);
    return take(IN_DEVICE, pointer, size);
}
int cudaMallocAsync(void **pointer, size_t size, void *stream) { return cudaMalloc(pointer, size); }
int cudaFree(void *pointer) { return give_back(IN_DEVICE, pointer); }
int cudaFreeAsync(void *pointer, void *stream) { return cudaFree(pointer); }
int cudaHostAlloc(void **pointer, size_t size, unsigned flags) {
    event(PINNED, "cudaHostAlloc", size);
    return take(IN_PINNED, pointer, size);
}
int cudaFreeHost(void *pointer) { return give_back(IN_PINNED, pointer); }
NOTHING(cudaHostRegister)
NOTHING(cudaHostUnregister)

int cudaMemGetInfo(size_t *free, size_t *total) {
    *total = total_memory();
    *free = *total - allocated;
    return OK;
}

int cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
    int device = -2, type = type_of(pointer);
    memset(attributes, 0, sizeof *attributes);
    if (type != PAGEABLE) {
        cudaGetDevice(&device);
        attributes->hostPointer = (void *)pointer;
    }
    if (type == DEVICE) attributes->devicePointer = (void *)pointer;
    attributes->type = type;
    attributes->device = device;
    return OK;
}

/* ---------------------------------------------------------------- copies */
#define LARGE (1u << 20)

static int kind_of_copy(int from, int to) {
    if (to == DEVICE && from == DEVICE) return COPY_D2D;
    if (to == DEVICE) return from == PINNED_HOST ? COPY_H2D : COPY_H2D_PAGEABLE;
    return to == PINNED_HOST ? COPY_D2H : COPY_D2H_PAGEABLE;
}

static int copied(const char *name, void *to, const void *from, size_t size) {
    int to_type = type_of(to), from_type = type_of(from);
    if (to_type == DEVICE || from_type == DEVICE) {
        event(kind_of_copy(from_type, to_type), name, size);
        /* the replayed graph would read memory that is long used for something else */
        int status = from_type == PAGEABLE || to_type == PAGEABLE ? unless_capturing() : OK;
        if (status != OK) return status;
    }
    if (!(is_lazy() && size > LARGE && to_type == DEVICE)) memmove(to, from, size);
    return OK;
}

int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
    return copied("cudaMemcpyAsync", to, from, size);
}
int cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device, size_t size,
                        void *stream) {
    return copied("cudaMemcpyPeerAsync", to, from, size);
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
    event(SYNC, "cudaMemcpy", size);
    int status = unless_capturing();
    return status == OK ? copied("cudaMemcpy", to, from, size) : status;
}
int cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                      size_t height, int kind, void *stream) {
    event(kind_of_copy(type_of(from), type_of(to)), "cudaMemcpy2DAsync", width * height);
    for (size_t row = 0; row < height; row++)
        memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    return OK;
}
int cudaMemcpyToSymbol(const void *symbol, const void *from, size_t size, size_t offset, int kind) {
    event(SYNC, "cudaMemcpyToSymbol", size);
    return unless_capturing();
}

int cudaMemset(void *pointer, int value, size_t size) {
    event(MEMSET, "cudaMemset", size);
    memset(pointer, value, size);
    return OK;
}
int cudaMemsetAsync(void *pointer, int value, size_t size, void *stream) {
    event(MEMSET, "cudaMemsetAsync", size);
    if (!(is_lazy() && size > LARGE)) memset(pointer, value, size);
    return OK;
}

static char symbols[1 << 16];
int cudaGetSymbolAddress(void **pointer, const void *symbol) {
    *pointer = symbols;
    return OK;
}
