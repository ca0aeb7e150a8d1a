// Stages of one process on several GPUs, or logical devices of one, under the engine. Needs a GPU.
#include <gtest/gtest.h>

#include <numeric>
#include <thread>

#include "absl/time/clock.h"
#include "kernels/cuda/device.h"
#include "tests/worker/gpu_engine.h"
#include "worker/weights/converted_tensors.h"

namespace millrace {
namespace {

class CudaStagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const cuda::DeviceList list = cuda::ListDevices();
    if (list.devices.empty()) GTEST_SKIP() << "no GPU: " << list.reason;
    gpus_ = list.devices.size();
    model_ = *Model::Open("");
  }

  // Cut in two and three, over logical devices of one GPU and over two GPUs where there are two.
  std::vector<Arrangement> Splits(int max_pass_tokens, int slots = 1) {
    std::vector<Arrangement> splits = {
        {{9}, {"gpu0", "gpu0#1"}, DType::kF16, max_pass_tokens, slots},
        {{6, 11}, {"gpu0", "gpu0#1", "gpu0#2"}, DType::kF16, max_pass_tokens, slots}};
    if (gpus_ > 1) {
      splits.push_back({{9}, {"gpu0", "gpu1"}, DType::kF16, max_pass_tokens, slots});
      splits.push_back({{9}, {"gpu1", "gpu0"}, DType::kF16, max_pass_tokens, slots});
      splits.push_back({{6, 11}, {"gpu1", "gpu0", "gpu1#1"}, DType::kF16, max_pass_tokens, slots});
      splits.push_back({{6, 11}, {"gpu0", "cpu", "gpu1"}, DType::kF16, max_pass_tokens, slots});
    }
    return splits;
  }

  std::shared_ptr<const Model> model_;
  size_t gpus_ = 0;
};

// The same kernels on the same numbers, so nothing but a lost, early or late copy makes a difference.
// In small chunks a long prompt is many passes that nobody waits for.
TEST_F(CudaStagesTest, HiddenStatesArriveWholeOnTheNextDevice) {
  for (int chunk : {1, 7, 100, 512}) {
    const auto whole = MakeEngine(model_, {{}, {"gpu0"}, DType::kF16, chunk});
    for (const Arrangement& split : Splits(chunk)) {
      const bool with_cpu = split.devices.size() == 3 && split.devices[1] == "cpu";
      const auto engine = MakeEngine(model_, split);
      for (int round = 0; round < 5; ++round) {
        const auto tokens = RandomTokens(500 - round, model_->spec().vocab, static_cast<uint64_t>(round));
        const auto a = engine->Logits(tokens), b = whole->Logits(tokens);
        ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
        EXPECT_LT(LargestDifference(*a, *b), with_cpu ? 0.02f : 5e-3f)
            << split.devices.size() << " stages, last on " << split.devices.back() << ", chunk " << chunk;
      }
    }
  }
}

// Tensors that are converted at load, one block after the other, against a model that holds them already.
TEST_F(CudaStagesTest, ConvertedTensorsAreThoseOfAModelThatHoldsThem) {
  std::vector<int> all(model_->spec().tensors.size());
  std::iota(all.begin(), all.end(), 0);
  for (DType dtype : kQuantizeTypes) {
    Arrangement at_load, split = {{9}, {"gpu0", "gpu0#1"}};
    for (const TensorSpec& t : model_->spec().tensors) {
      if (CanBeHeldAs(t, dtype)) at_load.types.push_back({t.name, dtype});
    }
    split.types = at_load.types;
    const auto converted = *ConvertedTensors::Create(model_, at_load.types, 2);
    ASSERT_TRUE(converted->Convert(all, nullptr).ok());
    const auto held = MakeEngine(converted->model(), {}), file = MakeEngine(model_, {});
    const auto tokens = RandomTokens(300, model_->spec().vocab, 1);
    const auto wanted = held->Logits(tokens), as_is = file->Logits(tokens);
    ASSERT_TRUE(wanted.ok() && as_is.ok()) << wanted.status() << as_is.status();
    for (const Arrangement& setup : {at_load, split}) {
      const auto got = MakeEngine(model_, setup)->Logits(tokens);
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_LT(LargestDifference(*got, *wanted), 5e-3f) << DTypeName(dtype);
      EXPECT_GT(LargestDifference(*got, *as_is), 5e-3f) << DTypeName(dtype);
    }
  }
}

TEST_F(CudaStagesTest, SequencesTogetherOnSeveralDevices) {
  const auto alone = MakeEngine(model_, {});
  std::vector<std::vector<TokenId>> prompts, expected;
  for (int i = 0; i < 9; ++i) {
    prompts.push_back(RandomTokens(3 + 41 * i, model_->spec().vocab, static_cast<uint64_t>(i)));
    expected.push_back(Greedy(*alone, prompts.back(), 40));
  }
  for (const Arrangement& split : Splits(96, 5)) {
    const auto together = MakeEngine(model_, split);
    std::vector<std::thread> clients;
    for (size_t i = 0; i < prompts.size(); ++i) {
      clients.emplace_back([&, i] {
        const std::vector<TokenId> got = Greedy(*together, prompts[i], 40);
        ASSERT_EQ(got.size(), expected[i].size());
        EXPECT_TRUE(std::equal(got.begin(), got.begin() + 8, expected[i].begin())) << i;
      });
    }
    for (std::thread& t : clients) t.join();
  }
}

TEST_F(CudaStagesTest, StoppingInTheMiddleOfPassesOnSeveralDevices) {
  for (const Arrangement& split : Splits(7)) {
    for (int round = 0; round < 4; ++round) {
      const auto engine = MakeEngine(model_, split);
      std::thread client([&] {
        GenerateRequest request;
        request.tokens = RandomTokens(300, model_->spec().vocab, 1);
        request.max_tokens = 200;
        request.ignore_end_of_generation = true;
        const auto summary = engine->Generate(request, nullptr);
        if (!summary.ok()) {
          EXPECT_EQ(summary.status().code(), absl::StatusCode::kCancelled) << summary.status();
        }
      });
      absl::SleepFor(absl::Milliseconds(3 * round));
      engine->Stop();
      client.join();
    }
  }
}

TEST_F(CudaStagesTest, StageTimesAddUpToThePass) {
  for (Arrangement split : Splits(64)) {
    std::vector<PassTrace> traces;
    split.on_pass = [&](const PassTrace& trace) { traces.push_back(trace); };
    {
      const auto engine = MakeEngine(model_, split);
      Greedy(*engine, RandomTokens(60, model_->spec().vocab, 1), 20);
      engine->Stop();
    }
    ASSERT_EQ(traces.size(), 20u);
    for (const PassTrace& trace : traces) {
      ASSERT_EQ(trace.stage_compute.size(), split.devices.size());
      absl::Duration sum;
      for (absl::Duration d : trace.stage_compute) {
        EXPECT_GE(d, absl::ZeroDuration());
        sum += d;
      }
      EXPECT_LE(sum, (trace.end - trace.begin) * 1.05);
    }
  }
}

}  // namespace
}  // namespace millrace
