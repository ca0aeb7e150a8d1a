#include "kernels/cuda/graph.h"

#include "kernels/cuda/status.h"

namespace millrace::cuda {
namespace {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { (void)cudaGraphDestroy(graph); }
};

}  // namespace

absl::StatusOr<Graph> Graph::Capture(StreamView stream, absl::FunctionRef<absl::Status()> issue) {
  MILLRACE_CUDA_RETURN_IF_ERROR(
      cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal));
  const absl::Status issued = issue();
  cudaGraph_t graph = nullptr;
  // Ends the capture also where it fails. Its error clears here too: ToStatus sees to that.
  const absl::Status ended = MILLRACE_CUDA_STATUS(cudaStreamEndCapture(stream.get(), &graph));
  const std::unique_ptr<CUgraph_st, DestroyGraph> owner(graph);
  MILLRACE_RETURN_IF_ERROR(issued);
  MILLRACE_RETURN_IF_ERROR(ended);
  cudaGraphExec_t executable = nullptr;
  MILLRACE_CUDA_RETURN_IF_ERROR(cudaGraphInstantiateWithFlags(&executable, graph, 0));
  return Graph(executable);
}

absl::Status Graph::Launch(StreamView stream) const {
  MILLRACE_CHECK(graph_ != nullptr);
  return MILLRACE_CUDA_STATUS(cudaGraphLaunch(graph_.get(), stream.get()));
}

}  // namespace millrace::cuda
