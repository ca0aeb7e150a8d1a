// Predicted time of blocks, each on the resource that computes it: weights read once per pass at
// the memory's bandwidth, or the multiply-adds of its rows, whichever is longer.
#ifndef MILLRACE_PLANNER_COST_MODEL_H_
#define MILLRACE_PLANNER_COST_MODEL_H_

#include "absl/time/time.h"
#include "planner/host_rates.h"
#include "planner/memory_budget.h"
#include "planner/placement_problem.h"
#include "proto/device_time_table.h"

namespace millrace {

// Decode on a GPU: the share of its measured read bandwidth that the matrix kernels reach, and what
// a half layer costs beside its bytes (launches, norms, the attention's latency). Defaults from
// first measurements, to be replaced by figures of the probe.
inline constexpr double kGpuDecodeEfficiency = 0.75;
inline constexpr double kGpuHalfLayerSeconds = 6e-6;
// Prompts on a GPU: the share of the probe's flops that whole passes reach, dequantisation and
// attention included. Measured on the reference machine (H200): a resident 70B Q4_K_M read 4,096
// tokens at 4,008 a second, 2 x 70.5e9 x 4,008 = 565 TFLOP/s, where plain products of those shapes
// reach 700 to 790 and the probe says 700 to 750.
inline constexpr double kGpuPrefillEfficiency = 0.78;

// Each block that the CPU computes for a GPU stage: hidden states down and up, waking the threads,
// beside the bytes that cross the link. From what the GPU was waited for between 24 such blocks of an 8B
// model on the reference machine.
inline constexpr double kHostHopSeconds = 70e-6;
// Attention that reads its cache over the link: the share of the link's rate that kernels reach,
// measured on the reference machine (47 of 54 GB/s), and half of that, for weights stream at the
// same time.
inline constexpr double kHostKvEfficiency = 0.5 * 47 / 54;
// Rows of a host-homed embedding: gathered by the CPU, copied up. Estimate.
inline constexpr double kHostEmbedSeconds = 10e-6;

// The rows of one pass: of one prompt, or of `tokens` sequences that decode one token each, their
// caches half full.
struct PassShape {
  int tokens = 1;
  bool prefill = false;
  int depth = 0;   // of a prompt: tokens before these, on average over the passes that are meant
  int prompt = 0;  // all tokens of it; 0: these
};

// A device under load reaches the speed that it can sustain after about so long. A fit through three
// figures of the reference machine: against the probe's short products a resident 70B model read 512
// tokens (0.1 s) 16% slower, 4096 31%, an 8B model 512 (16 ms) 6%.
inline constexpr double kPowerSeconds = 0.13;
// Whole passes over the sum of their pieces, by rows decoding together, and of prompts: the pieces are
// timed by themselves, again and again. The middle of what 8B and 70B models measured on the reference
// machine (docs/plan-accuracy.md: 0.98 to 1.07 for one row, 1.0 to 1.18 for 8, 1.13 to 1.28 for 32); what
// it comes from is not known.
inline constexpr struct {
  int tokens;
  double ratio;
} kPassOverPieces[] = {{1, 1.03}, {4, 1.05}, {8, 1.12}, {16, 1.13}, {32, 1.2}};
inline constexpr double kPromptOverPieces = 1.05;
// What the engine takes between two passes: tokens handed out, the next batch made. Measured: an 8B
// model's token took 0.08 to 0.11 ms more than its pieces.
inline constexpr double kEnginePassSeconds = 80e-6;

class CostModel {
 public:
  CostModel(const PlacementProblem& problem, const MemoryBudget& memory);

  // The block computed on `device` of `host`, its weights there. Seconds.
  double DeviceSeconds(const HostSpec& host, const DeviceSpec& device, int block,
                       PassShape pass) const;
  // Of a pass beside its blocks, on the device that the head is on: what the device was timed with, else
  // nothing. Seconds.
  double PassSeconds(const DeviceSpec& device, PassShape pass) const;
  // The products of a block on the CPU beside a GPU that weights are copied to;
  // planner/host_rates.h. Seconds.
  double HostComputeSeconds(const HostSpec& host, int block, PassShape pass) const;
  // Hidden states down to the CPU and back. Seconds.
  double HostHopSeconds(const DeviceSpec& device, PassShape pass) const;
  // Of a host-homed embedding: everything. Seconds.
  double HostEmbedSeconds(const DeviceSpec& device, PassShape pass) const;
  // What a cache in host memory adds to an attention block on the device. A prompt's rows read it
  // in tiles of 128, half full on average. Seconds.
  double HostKvSeconds(const DeviceSpec& device, int block, PassShape pass) const;
  // `tokens` hidden states from one stage to the next. Seconds.
  double HopSeconds(const LinkSpec& link, int tokens) const;

 private:
  // Rows that run through the block's matrices.
  int Rows(int block, PassShape pass) const;
  // Multiply-adds x 2 of the block's matrices for those rows; a single row counts as none: it is
  // bound by memory everywhere.
  double Flops(int block, PassShape pass) const;
  // By the device's times, which were measured.
  double TimedSeconds(const DeviceSpec& device, int block, PassShape pass) const;
  // How much longer products take than in a short test: work goes on for as long as the prompt does, or
  // a generation.
  double PowerRatio(const DeviceSpec& device, PassShape pass) const;
  double CpuSeconds(const HostSpec& host, int block, PassShape pass, LinkLoad link) const;

  const PlacementProblem& problem_;
  const MemoryBudget& memory_;
  const DeviceTimeTable& TableOf(const DeviceSpec& device) const;

  std::vector<double> parameters_;  // by block
  double all_parameters_ = 0;
  std::map<const DeviceSpec*, DeviceTimeTable> tables_;  // of the problem's devices that were timed
};

}  // namespace millrace

#endif  // MILLRACE_PLANNER_COST_MODEL_H_
