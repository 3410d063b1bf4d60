/* NCCL between the processes of one machine: real results, by way of shared memory.
 *
 * A collective runs when it is called. All processes meet twice a chunk: when each has shown its
 * own values, and when each has read those of the others. Where device memory stays untouched
 * (PRETEND_LAZY) there is nothing to exchange and each process hears itself. */
#include "pretend.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4 };
enum { SUM, PRODUCT, MAX, MIN, AVERAGE };
enum { INT8, UINT8, INT32, UINT32, INT64, UINT64, FLOAT16, FLOAT32, FLOAT64, BFLOAT16, NUM_TYPES };
static const size_t sizes[NUM_TYPES] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};

#define CHUNK (1u << 20)
#define PATIENCE 300 /* seconds that the others may be late */

typedef struct {
    int num_arrived, round;
    char values[][CHUNK]; /* of each process */
} Meeting;
typedef struct {
    int rank, size;
    Meeting *meeting;
} Group;
typedef struct {
    char name[128];
} UniqueId;

/* ---------------------------------------------------------------- processes that meet */
static int meet(Group *group) {
    Meeting *at = group->meeting;
    int round = __atomic_load_n(&at->round, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&at->num_arrived, 1, __ATOMIC_ACQ_REL) == group->size) {
        at->num_arrived = 0;
        __atomic_store_n(&at->round, round + 1, __ATOMIC_RELEASE);
        return OK;
    }
    time_t end = time(0) + PATIENCE;
    while (__atomic_load_n(&at->round, __ATOMIC_ACQUIRE) == round) {
        if (time(0) > end) return SYSTEM_ERROR;
        usleep(50);
    }
    return OK;
}

int ncclGetUniqueId(UniqueId *id) {
    static int count;
    snprintf(id->name, sizeof id->name, "/pretended-nccl-%d-%d", getpid(), count++);
    return OK;
}

int ncclCommInitRankConfig(Group **created, int size, UniqueId id, int rank, void *config) {
    size_t num_bytes = sizeof(Meeting) + (size_t)size * CHUNK;
    int file = shm_open(id.name, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, num_bytes)) return SYSTEM_ERROR;
    void *shared = mmap(0, num_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) return SYSTEM_ERROR;
    Group *group = malloc(sizeof *group);
    *group = (Group){rank, size, shared};
    *created = group;
    int status = meet(group);
    shm_unlink(id.name); /* all have it open */
    return status;
}
int ncclCommCount(Group *group, int *size) {
    *size = group->size;
    return OK;
}
int ncclCommUserRank(Group *group, int *rank) {
    *rank = group->rank;
    return OK;
}
int ncclCommGetAsyncError(Group *group, int *error) {
    *error = OK;
    return OK;
}
NOTHING(ncclCommAbort)
NOTHING(ncclCommDeregister)
NOTHING(ncclCommDestroy)
NOTHING(ncclCommFinalize)
NOTHING(ncclCommRegister)
NOTHING(ncclGroupEnd)
NOTHING(ncclGroupStart)

/* ---------------------------------------------------------------- sums */
#define REDUCER(name, type)                                                                        \
    static void name(type *result, const Group *group, size_t num, int operation) {                \
        for (size_t i = 0; i < num; i++) {                                                         \
            type value = ((const type *)group->meeting->values[0])[i];                             \
            for (int rank = 1; rank < group->size; rank++) {                                       \
                type other = ((const type *)group->meeting->values[rank])[i];                      \
                if (operation == MAX)                                                              \
                    value = other > value ? other : value;                                         \
                else if (operation == MIN)                                                         \
                    value = other < value ? other : value;                                         \
                else                                                                               \
                    value += other;                                                                \
            }                                                                                      \
            result[i] = operation == AVERAGE ? value / group->size : value;                        \
        }                                                                                          \
    }
REDUCER(reduce_uint8, uint8_t)
REDUCER(reduce_int32, int32_t)
REDUCER(reduce_int64, int64_t)
REDUCER(reduce_float32, float)
REDUCER(reduce_float64, double)

static int reduce(void *result, const Group *group, size_t num, int type, int operation) {
    switch (type) {
    case UINT8: reduce_uint8(result, group, num, operation); return OK;
    case INT32: reduce_int32(result, group, num, operation); return OK;
    case INT64: reduce_int64(result, group, num, operation); return OK;
    case FLOAT32: reduce_float32(result, group, num, operation); return OK;
    case FLOAT64: reduce_float64(result, group, num, operation); return OK;
    default: return INVALID_ARGUMENT; /* our gradients and counters have none of the others */
    }
}

/* ---------------------------------------------------------------- collectives */
int ncclAllReduce(const char *from, char *to, size_t num, int type, int operation, Group *group,
                  void *stream) {
    size_t size = sizes[type], most = CHUNK / size;
    event(NCCL, "ncclAllReduce", num * size);
    if (operation == PRODUCT) return INVALID_ARGUMENT;
    for (size_t done = 0; !is_lazy() && done < num; done += most) {
        size_t here = num - done < most ? num - done : most;
        memcpy(group->meeting->values[group->rank], from + done * size, here * size);
        int status = meet(group);
        if (!status) status = reduce(to + done * size, group, here, type, operation);
        if (!status) status = meet(group);
        if (status) return status;
    }
    return OK;
}
int ncclReduce(const char *from, char *to, size_t num, int type, int operation, int root,
               Group *group, void *stream) {
    return ncclAllReduce(from, to, num, type, operation, group, stream);
}

int ncclBroadcast(const char *from, char *to, size_t num, int type, int root, Group *group,
                  void *stream) {
    size_t num_bytes = num * sizes[type];
    event(NCCL, "ncclBroadcast", num_bytes);
    for (size_t done = 0; !is_lazy() && done < num_bytes; done += CHUNK) {
        size_t here = num_bytes - done < CHUNK ? num_bytes - done : CHUNK;
        char *shown = group->meeting->values[root];
        if (group->rank == root) memcpy(shown, from + done, here);
        int status = meet(group);
        memcpy(to + done, shown, here);
        if (!status) status = meet(group);
        if (status) return status;
    }
    return OK;
}
int ncclBcast(char *buffer, size_t num, int type, int root, Group *group, void *stream) {
    return ncclBroadcast(buffer, buffer, num, type, root, group, stream);
}

int ncclAllGather(const char *from, char *to, size_t num, int type, Group *group, void *stream) {
    size_t num_bytes = num * sizes[type];
    event(NCCL, "ncclAllGather", num_bytes);
    for (size_t done = 0; !is_lazy() && done < num_bytes; done += CHUNK) {
        size_t here = num_bytes - done < CHUNK ? num_bytes - done : CHUNK;
        memcpy(group->meeting->values[group->rank], from + done, here);
        int status = meet(group);
        for (int rank = 0; rank < group->size; rank++)
            memcpy(to + rank * num_bytes + done, group->meeting->values[rank], here);
        if (!status) status = meet(group);
        if (status) return status;
    }
    return OK;
}
