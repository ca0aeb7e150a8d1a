// millrace synth: a model of a real one's shape with random weights.
#include <cstdio>
#include <memory>

#include "absl/strings/str_join.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/progress_bar.h"
#include "tools/synth.h"

namespace millrace {
namespace {

absl::StatusOr<int> RunSynth(SynthOptions options) {
  ProgressBar bar("writing", ProgressBar::Unit::kBytes);
  options.on_progress = [&bar](Bytes done, Bytes total) {
    bar.Update(done.count(), total.count());
  };
  MILLRACE_RETURN_IF_ERROR(WriteSyntheticModel(options));
  bar.Finish();
  std::fprintf(stderr, "wrote %s\n", options.path.c_str());
  return kExitDone;
}

}  // namespace

void AddSynthCommand(CLI::App& app, Command& chosen) {
  auto options = std::make_shared<SynthOptions>();
  CLI::App* sub = app.add_subcommand("synth", "write a model with random weights");
  sub->add_option("SHAPE", options->shape, "one of " + absl::StrJoin(SynthShapeNames(), ", "))
      ->required();
  sub->add_option("--quant", options->quant, "one of " + absl::StrJoin(SynthQuantNames(), ", "))
      ->required();
  sub->add_option("-o,--output", options->path, "the GGUF file to write")->required();
  sub->add_option("--seed", options->seed, "the same seed gives the same bytes");
  sub->add_option("--threads", options->threads, "CPU threads")->check(CLI::Range(1, 4096));
  sub->callback([options, &chosen] { chosen = [options] { return RunSynth(*options); }; });
}

}  // namespace millrace
