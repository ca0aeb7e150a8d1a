#include "worker/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "worker/probe_cpu.h"
#include "worker/process_memory.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

// Cards of 100 GiB, 90 of them free, that take 1 GiB.
GpuSource FakeGpus(int count) {
  GpuSource source;
  source.list = [count] {
    GpuList list;
    for (int i = 0; i < count; ++i) list.names.push_back("Fake");
    if (count == 0) list.reason = "no driver";
    return list;
  };
  source.probe = [](int index, Bytes) -> absl::StatusOr<GpuReport> {
    GpuReport report;
    report.name = "Fake";
    report.total = 100_GiB;
    report.free = 90_GiB;
    report.overhead = 1_GiB;
    report.memory_bandwidth = Bandwidth::GBPerSecond(1000 + index);
    report.h2d_bandwidth = Bandwidth::GBPerSecond(50);
    report.prefill_flops = 1e14;
    return report;
  };
  return source;
}

TEST(ProbeTest, MeasuresThisMachineInSeconds) {
  ProbeOptions options;
  options.worker = WorkerId("w0");
  options.devices = *ParseDevices("cpu");
  options.threads = 1;
  const absl::Time start = absl::Now();
  const absl::StatusOr<HostSpec> host = ProbeHost(options);
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));  // generous: unoptimised and shared machines
  EXPECT_GT(host->memory_total, 64_MiB);
  EXPECT_LE(host->budget, host->memory_total);
  EXPECT_GT(host->dram_bandwidth.gb_per_second(), 0.5);
  EXPECT_LT(host->dram_bandwidth.gb_per_second(), 2000);
  ASSERT_EQ(host->devices.size(), 1u);
  EXPECT_EQ(host->devices[0].id, DeviceId("cpu"));
  EXPECT_GT(host->devices[0].prefill_flops, 1e8);
  EXPECT_EQ(host->cpu_flops, host->devices[0].prefill_flops);
  ASSERT_EQ(host->cpu_rates.size(), 6u);
  int tokens = 0;
  for (const CpuRate& rate : host->cpu_rates) {
    EXPECT_GT(rate.tokens, tokens);
    EXPECT_GT(rate.weights.bytes_per_second(), 1e6) << rate.tokens;
    EXPECT_LE(rate.weights, host->cpu_rates.front().weights) << rate.tokens;
    tokens = rate.tokens;
  }
  EXPECT_EQ(host->cpu_rates.front().tokens, 1);
  EXPECT_EQ(tokens, 256);
  EXPECT_GT(host->devices[0].overhead, 1_MiB);
}

TEST(ProbeTest, ProductsAreMeasuredBesideCopiesToAllGpusOrToNone) {
  ProbeOptions options;
  options.worker = WorkerId("w0");
  options.devices = *ParseDevices("gpu0:20GiB,gpu1:20GiB,gpu0:20GiB");
  options.threads = 1;
  options.gpus = FakeGpus(2);
  EXPECT_EQ(ProbeHost(options)->cpu_rates.front().beside_copies, Bandwidth()) << "no way to copy";
  std::vector<int> started;
  int running = 0;
  const std::byte* end = nullptr;  // of the pages that others copy from
  options.gpus.upload = [&](int index, absl::Span<const std::byte> from)
      -> absl::StatusOr<std::shared_ptr<void>> {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(from.data()) % 4096, 0u);
    EXPECT_GT(from.size(), 0u);
    EXPECT_TRUE(from.data() >= end) << "pages cannot be locked twice";
    end = from.data() + from.size();
    started.push_back(index);
    ++running;
    return std::shared_ptr<void>(&running, [](int* count) { --*count; });
  };
  const absl::StatusOr<HostSpec> host = ProbeHost(options);
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_EQ(started, std::vector<int>({0, 1}));
  EXPECT_EQ(running, 0);
  for (const CpuRate& rate : host->cpu_rates) {
    EXPECT_GT(rate.beside_copies, Bandwidth()) << rate.tokens;
    EXPECT_LE(rate.beside_copies, rate.weights) << rate.tokens;
  }
  options.gpus.upload = [&](int index, absl::Span<const std::byte>)
      -> absl::StatusOr<std::shared_ptr<void>> {
    if (index == 1) return absl::InternalError("cannot");
    return std::shared_ptr<void>(&running, [](int*) {});
  };
  EXPECT_EQ(ProbeHost(options)->cpu_rates.front().beside_copies, Bandwidth());
}

TEST(ProbeCpuTest, TheBufferIsLargeAgainstCachesAndSmallAgainstTheBudget) {
  EXPECT_EQ(ProbeBufferFor(300_MiB, 128_GiB), 2400_MiB);
  EXPECT_EQ(ProbeBufferFor(1_GiB, 128_GiB), 4_GiB);
  EXPECT_EQ(ProbeBufferFor(4_MiB, 128_GiB), 96_MiB);
  EXPECT_EQ(ProbeBufferFor(Bytes(0), 128_GiB), 512_MiB) << "unknown";
  EXPECT_EQ(ProbeBufferFor(300_MiB, 1_GiB), 512_MiB);
  EXPECT_EQ(ProbeBufferFor(300_MiB, Bytes(-5)), 8_MiB);
  EXPECT_LE(ProbeBuffer(64_MiB), 32_MiB);
}

TEST(ProbeCpuTest, ASmallBufferHasNoTable) {
  const CpuSpeeds small = MeasureCpu(1, 8_MiB);
  EXPECT_TRUE(small.cpu_rates.empty());
  EXPECT_GT(small.dram_bandwidth.gb_per_second(), 0.1);
  EXPECT_GT(small.cpu_flops, 1e8);
}

TEST(ProbeTest, BuffersOfAGpuStayWithinItsBudgets) {
  ProbeOptions options;
  options.threads = 1;
  options.host_memory = 256_MiB;
  options.gpus = FakeGpus(2);
  std::vector<Bytes> budgets;
  const auto probe = options.gpus.probe;
  options.gpus.probe = [&](int index, Bytes budget) {
    budgets.push_back(budget);
    return probe(index, budget);
  };
  options.devices = *ParseDevices("gpu0:2GiB,gpu0:3GiB,gpu1:2GiB,gpu1");
  ASSERT_TRUE(ProbeHost(options).ok());
  ASSERT_EQ(budgets.size(), 2u);
  EXPECT_EQ(budgets[0], 5_GiB);
  EXPECT_GT(budgets[1], 100_GiB) << "one of them has no budget";
}

TEST(ProbeTest, OneProcessIsCountedOnce) {
  ProbeOptions options;
  options.devices = *ParseDevices("cpu:64MiB,cpu:32MiB");
  const absl::StatusOr<HostSpec> host = ProbeHost(options);
  ASSERT_TRUE(host.ok()) << host.status();
  ASSERT_EQ(host->devices.size(), 2u);
  EXPECT_GT(host->devices[0].overhead, Bytes(0));
  EXPECT_EQ(host->devices[1].overhead, Bytes(0));
  EXPECT_EQ(host->devices[1].budget, 32_MiB);
}

TEST(ProbeTest, BudgetsThatCannotBeAreRefused) {
  ProbeOptions options;
  options.host_memory = 1_MiB;
  EXPECT_THAT(std::string(ProbeHost(options).status().message()),
              HasSubstr("this process takes by itself"));
  options.host_memory = MeasureHostMemory().total + 1_GiB;
  EXPECT_THAT(std::string(ProbeHost(options).status().message()), HasSubstr("--host-memory"));
}

absl::StatusOr<HostSpec> ProbeFake(int gpus, const std::string& devices) {
  ProbeOptions options;
  options.threads = 1;
  options.devices = *ParseDevices(devices);
  options.gpus = FakeGpus(gpus);
  return ProbeHost(options);
}

TEST(ProbeTest, LogicalGpusShareTheirHardware) {
  const auto host = ProbeFake(2, "gpu1:24GiB,gpu1,gpu0,cpu,gpu1");
  ASSERT_TRUE(host.ok()) << host.status();
  ASSERT_EQ(host->devices.size(), 5u);
  EXPECT_EQ(host->devices[0].id, DeviceId("gpu1"));
  EXPECT_EQ(host->devices[0].budget, 24_GiB);
  EXPECT_EQ(host->devices[0].overhead, 1_GiB);
  EXPECT_EQ(host->devices[1].id, DeviceId("gpu1#1"));
  const Bytes left = 90_GiB - kGpuHeadroom - 24_GiB;
  EXPECT_EQ(host->devices[1].budget, Bytes(left.count() / 2));
  EXPECT_EQ(host->devices[1].overhead, Bytes(0));
  EXPECT_EQ(host->devices[1].memory_bandwidth, Bandwidth::GBPerSecond(1001));
  EXPECT_EQ(host->devices[2].budget, 90_GiB - kGpuHeadroom);
  EXPECT_EQ(host->devices[2].overhead, 1_GiB);
  EXPECT_EQ(host->devices[2].memory_total, 100_GiB);
  EXPECT_EQ(host->devices[3].kind, DeviceKind::kCpu);
  EXPECT_GT(host->devices[3].overhead, 1_MiB) << "the process is on the CPU device";
  EXPECT_EQ(host->devices[4].id, DeviceId("gpu1#2"));
  EXPECT_EQ(host->devices[4].overhead, Bytes(0));
}

TEST(ProbeTest, AutoTakesAllGpus) {
  const auto host = ProbeFake(2, "auto");
  ASSERT_TRUE(host.ok()) << host.status();
  ASSERT_EQ(host->devices.size(), 2u);
  EXPECT_EQ(host->devices[1].id, DeviceId("gpu1"));
  const auto none = ProbeFake(0, "auto");
  ASSERT_TRUE(none.ok()) << none.status();
  ASSERT_EQ(none->devices.size(), 1u);
  EXPECT_EQ(none->devices[0].id, DeviceId("cpu"));
}

TEST(ProbeTest, MeasuredFlopsReplaceTheEstimate) {
  ProbeOptions options;
  options.threads = 1;
  options.devices = *ParseDevices("gpu0");
  options.gpus = FakeGpus(1);
  options.gpus.measure_prefill_flops = [](int) { return 7e14; };
  const auto host = ProbeHost(options);
  ASSERT_TRUE(host.ok()) << host.status();
  EXPECT_EQ(host->devices[0].prefill_flops, 7e14);
}

TEST(ProbeTest, GpusThatCannotBeAreRefusedByFlag) {
  const auto message = [](int gpus, const char* devices) {
    const auto host = ProbeFake(gpus, devices);
    EXPECT_EQ(host.status().code(), absl::StatusCode::kInvalidArgument) << devices;
    return std::string(host.status().message());
  };
  EXPECT_THAT(message(1, "gpu1"), testing::AllOf(HasSubstr("--devices: 'gpu1'"),
                                                 HasSubstr("gpu0 (Fake)")));
  EXPECT_THAT(message(0, "gpu0"), testing::AllOf(HasSubstr("no driver"), HasSubstr("use cpu")));
  EXPECT_THAT(message(1, "gpu0:101GiB"), HasSubstr("100 GiB"));
  EXPECT_THAT(message(1, "gpu0:60GiB,gpu0:60GiB"), HasSubstr("together"));
  EXPECT_THAT(message(1, "gpu0:512MiB"), HasSubstr("CUDA takes by itself"));
}

// Whatever this machine has: a report, or a reason that names the flag.
TEST(ProbeTest, ThisMachinesGpu) {
  const GpuSource source = CudaGpus();
  const GpuList list = source.list();
  if (list.names.empty()) {
    EXPECT_FALSE(list.reason.empty());
    ProbeOptions options;
    options.devices = *ParseDevices("gpu0");
    EXPECT_THAT(std::string(ProbeHost(options).status().message()), HasSubstr(list.reason));
    GTEST_SKIP() << list.reason;
  }
  const absl::Time start = absl::Now();
  const auto report = source.probe(0, 24_GiB);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_LT(absl::Now() - start, absl::Seconds(10));  // the context and a busy card included
  EXPECT_GT(report->total, 1_GiB);
  EXPECT_LE(report->free, report->total);
  EXPECT_GE(report->overhead, report->direct_products ? kCudaKernelReserve : kCudaLibraryReserve);
  EXPECT_LT(report->overhead, kCudaLibraryReserve + 1_GiB);
  EXPECT_GT(report->memory_bandwidth.gb_per_second(), 50);
  EXPECT_LT(report->memory_bandwidth.gb_per_second(), 20000);
  EXPECT_GT(report->h2d_bandwidth.gb_per_second(), 1);
  EXPECT_GT(report->prefill_flops, 1e12);
}

TEST(ProbeTest, PrefillEstimateIsNearWhatWasMeasured) {
  // An H200 runs large products at 700 to 790 TFLOP/s.
  EXPECT_NEAR(EstimatedPrefillFlops(90, 132, 1.98e9), 745e12, 50e12);
  EXPECT_LT(EstimatedPrefillFlops(86, 82, 1.7e9), EstimatedPrefillFlops(80, 108, 1.41e9));
}

}  // namespace
}  // namespace millrace
