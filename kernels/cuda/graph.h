// Graph: work recorded once from a stream and replayed with one call.
#ifndef MILLRACE_KERNELS_CUDA_GRAPH_H_
#define MILLRACE_KERNELS_CUDA_GRAPH_H_

#include <cuda_runtime_api.h>

#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/stream.h"

namespace millrace::cuda {

// Move-only. Addresses and sizes are those of the capture: memory the graph uses outlives it, and
// what varies between replays lies in device memory. A graph must not die while it runs.
class Graph {
 public:
  // Records what `issue` queues on `stream`, without running it. `issue` must not allocate, wait,
  // or use another stream that is not joined to this one by events; each kernel should have run
  // once before, so that its code is on the device. Other threads may do as they like meanwhile. On
  // failure, of `issue` first, nothing is left of the capture and the stream is usable.
  static absl::StatusOr<Graph> Capture(StreamView stream, absl::FunctionRef<absl::Status()> issue);

  // Queues the recorded work. Replays of one graph run one after the other.
  absl::Status Launch(StreamView stream) const;

 private:
  struct Destroy {
    void operator()(cudaGraphExec_t graph) const { (void)cudaGraphExecDestroy(graph); }
  };
  explicit Graph(cudaGraphExec_t graph) : graph_(graph) {}
  std::unique_ptr<CUgraphExec_st, Destroy> graph_;
};

}  // namespace millrace::cuda

#endif  // MILLRACE_KERNELS_CUDA_GRAPH_H_
