/* Streams, events and graphs. There is no queue: what is enqueued has happened. */
#include "pretend.h"

/* Handles are addresses that nobody reads. */
#define NUM_HANDLES 4096
static int handles[NUM_HANDLES];
static unsigned next_handle;
void *new_handle(void) {
    return &handles[__atomic_fetch_add(&next_handle, 1, __ATOMIC_RELAXED) % NUM_HANDLES];
}

/* of a thread, as in the capture mode thread_local */
static _Thread_local enum cudaStreamCaptureStatus capture;
int unless_capturing(void) {
    if (capture == cudaStreamCaptureStatusNone) return OK;
    int is_first = capture == cudaStreamCaptureStatusActive;
    capture = cudaStreamCaptureStatusInvalidated;
    return is_first ? IS_CAPTURING : CAPTURE_INVALIDATED;
}

/* ---------------------------------------------------------------- streams */
MAKE(cudaStreamCreate)
MAKE(cudaStreamCreateWithFlags)
MAKE(cudaStreamCreateWithPriority)
int cudaStreamSynchronize(void *stream) {
    event(SYNC, "cudaStreamSynchronize", 0);
    return unless_capturing();
}
int cudaStreamGetPriority(void *stream, int *priority) {
    *priority = 0;
    return OK;
}
int cudaLaunchHostFunc(void *stream, void (*function)(void *), void *data) {
    function(data);
    return OK;
}
int cudaStreamAddCallback(void *stream, void (*function)(void *, int, void *), void *data,
                          unsigned flags) {
    function(stream, OK, data);
    return OK;
}
NOTHING(cudaStreamDestroy)
NOTHING(cudaStreamQuery)
NOTHING(cudaStreamWaitEvent)

/* ---------------------------------------------------------------- events */
MAKE(cudaEventCreate)
MAKE(cudaEventCreateWithFlags)
int cudaEventSynchronize(void *event_handle) {
    event(SYNC, "cudaEventSynchronize", 0);
    return unless_capturing();
}
int cudaEventElapsedTime(float *milliseconds, void *start, void *end) {
    *milliseconds = 0;
    return OK;
}
int cudaEventElapsedTime_v2(float *milliseconds, void *start, void *end) {
    return cudaEventElapsedTime(milliseconds, start, end);
}
NOTHING(cudaEventDestroy)
NOTHING(cudaEventQuery)
NOTHING(cudaEventRecord)
NOTHING(cudaEventRecordWithFlags)
NOTHING(cudaIpcCloseMemHandle)
NOTHING(cudaIpcGetEventHandle)
NOTHING(cudaIpcGetMemHandle)
NOTHING(cudaIpcOpenEventHandle)
NOTHING(cudaIpcOpenMemHandle)

/* ---------------------------------------------------------------- graphs */
int cudaStreamBeginCapture(void *stream, int mode) {
    capture = cudaStreamCaptureStatusActive;
    return OK;
}
/* an invalid capture ends, too, but with an error and without a graph */
int cudaStreamEndCapture(void *stream, void **graph) {
    int is_valid = capture == cudaStreamCaptureStatusActive;
    capture = cudaStreamCaptureStatusNone;
    *graph = is_valid ? new_handle() : 0;
    return is_valid ? OK : CAPTURE_INVALIDATED;
}
int cudaStreamIsCapturing(void *stream, int *status) {
    *status = capture;
    return OK;
}
/* as CUDA 12 and 13 have it; what is not asked for is null */
int cudaStreamGetCaptureInfo_v3(void *stream, int *status, u64 *id, void **graph, void ***nodes,
                                void **edges, size_t *num_nodes) {
    *status = capture;
    if (id) *id = capture == cudaStreamCaptureStatusActive ? 7 : 0;
    if (graph) *graph = handles;
    if (nodes) *nodes = 0;
    if (edges) *edges = 0;
    if (num_nodes) *num_nodes = 0;
    return OK;
}
int cudaStreamGetCaptureInfo_v2(void *stream, int *status, u64 *id, void **graph, void ***nodes,
                                size_t *num_nodes) {
    return cudaStreamGetCaptureInfo_v3(stream, status, id, graph, nodes, 0, num_nodes);
}
int cudaStreamGetCaptureInfo(void *stream, int *status, u64 *id, void **graph, void ***nodes,
                             void **edges, size_t *num_nodes) {
    return cudaStreamGetCaptureInfo_v3(stream, status, id, graph, nodes, edges, num_nodes);
}
int cudaGraphInstantiateWithFlags(void **executable, void *graph, u64 flags) {
    *executable = new_handle();
    return OK;
}
int cudaGraphGetNodes(void *graph, void **nodes, size_t *num_nodes) {
    *num_nodes = 1;
    return OK;
}
int cudaGraphLaunch(void *executable, void *stream) {
    event(LAUNCH, "cudaGraphLaunch", 0);
    return OK;
}
int cudaUserObjectCreate(void **object, void *pointer, void *destroy, unsigned count,
                         unsigned flags) {
    *object = new_handle();
    return OK;
}
NOTHING(cudaThreadExchangeStreamCaptureMode)
NOTHING(cudaStreamBeginCaptureToGraph)
NOTHING(cudaStreamUpdateCaptureDependencies)
NOTHING(cudaGraphAddNode)
NOTHING(cudaGraphConditionalHandleCreate)
NOTHING(cudaGraphDestroy)
NOTHING(cudaGraphExecDestroy)
NOTHING(cudaGraphNodeGetDependencies)
NOTHING(cudaGraphRetainUserObject)
NOTHING(cudaUserObjectRelease)
