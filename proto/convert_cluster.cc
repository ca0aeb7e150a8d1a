#include "absl/strings/str_cat.h"
#include "proto/convert.h"
#include "proto/field_check.h"

namespace millrace {
namespace {

DeviceSpec DeviceFromProto(FieldCheck& check, const std::string& at, const v1::DeviceSpec& wire) {
  DeviceSpec device;
  device.id = DeviceId(check.Name(at + ".id", wire.id()));
  device.kind = static_cast<DeviceKind>(check.Int32(at + ".kind", wire.kind(), 1, 2) - 1);
  device.name = wire.name();
  device.memory_total = check.Size(at + ".memory_total", wire.memory_total());
  device.budget = check.Size(at + ".budget", wire.budget());
  device.overhead = check.Size(at + ".overhead", wire.overhead());
  device.memory_bandwidth = Bandwidth::BytesPerSecond(
      check.NonNegative(at + ".memory_bandwidth", wire.memory_bandwidth()));
  device.h2d_bandwidth =
      Bandwidth::BytesPerSecond(check.NonNegative(at + ".h2d_bandwidth", wire.h2d_bandwidth()));
  device.prefill_flops = check.NonNegative(at + ".prefill_flops", wire.prefill_flops());
  device.direct_products = wire.direct_products();
  if (wire.has_times()) device.times = DeviceTimesFromProto(check, at + ".times", wire.times());
  if (device.budget > device.memory_total) {
    check.Refuse(at + ".budget", FormatBytes(device.budget),
                 " is more than the device has: ", FormatBytes(device.memory_total));
  }
  return device;
}

std::vector<CpuRate> CpuRatesFromProto(FieldCheck& check, const std::string& at,
                                       const v1::HostSpec& wire) {
  std::vector<CpuRate> rates;
  if (wire.cpu_rates_size() > 64) {
    check.Refuse(at, wire.cpu_rates_size(), " points; at most 64 are accepted");
    return rates;
  }
  for (const v1::CpuRate& rate : wire.cpu_rates()) {
    const std::string point = absl::StrCat(at, "[", rates.size(), "]");
    const int above = rates.empty() ? 0 : rates.back().tokens;
    CpuRate read;
    read.tokens = check.Int32(point + ".tokens", rate.tokens(), above + 1, 1 << 24);
    read.weights = Bandwidth::BytesPerSecond(check.NonNegative(point + ".weights", rate.weights()));
    if (rate.weights() == 0) check.Refuse(point + ".weights", "must not be 0");
    read.beside_copies = Bandwidth::BytesPerSecond(
        check.NonNegative(point + ".beside_copies", rate.beside_copies()));
    rates.push_back(read);
    if (!check.ok()) break;
  }
  return rates;
}

HostSpec HostFromProto(FieldCheck& check, const std::string& at, const v1::HostSpec& wire) {
  HostSpec host;
  host.worker = WorkerId(check.Name(at + ".worker", wire.worker()));
  host.address = wire.address();
  if (host.address.size() > 1024) check.Refuse(at + ".address", "is longer than 1024 bytes");
  host.memory_total = check.Size(at + ".memory_total", wire.memory_total());
  host.budget = check.Size(at + ".budget", wire.budget());
  host.dram_bandwidth =
      Bandwidth::BytesPerSecond(check.NonNegative(at + ".dram_bandwidth", wire.dram_bandwidth()));
  host.cpu_flops = check.NonNegative(at + ".cpu_flops", wire.cpu_flops());
  host.cpu_rates = CpuRatesFromProto(check, at + ".cpu_rates", wire);
  host.disk_bandwidth =
      Bandwidth::BytesPerSecond(check.NonNegative(at + ".disk_bandwidth", wire.disk_bandwidth()));
  host.threads = check.Int32(at + ".threads", wire.threads(), 1, 1 << 16);
  if (host.budget > host.memory_total) {
    check.Refuse(at + ".budget", FormatBytes(host.budget),
                 " is more than the host has: ", FormatBytes(host.memory_total));
  }
  if (wire.devices_size() < 1 || wire.devices_size() > 1024) {
    check.Refuse(at + ".devices", wire.devices_size(), " devices; 1 to 1024 are accepted");
    return host;
  }
  for (int i = 0; i < wire.devices_size(); ++i) {
    const std::string device_at = absl::StrCat(at, ".devices[", i, "]");
    host.devices.push_back(DeviceFromProto(check, device_at, wire.devices(i)));
    for (int j = 0; j < i; ++j) {
      if (wire.devices(j).id() == wire.devices(i).id()) {
        check.Refuse(device_at + ".id", "'", wire.devices(i).id(), "' appears twice");
      }
    }
  }
  return host;
}

v1::LinkSpec LinkToProto(const LinkSpec& link) {
  v1::LinkSpec wire;
  wire.set_latency_ms(absl::ToDoubleMilliseconds(link.latency));
  wire.set_bandwidth(link.bandwidth.bytes_per_second());
  return wire;
}

LinkSpec LinkFromProto(FieldCheck& check, const std::string& at, const v1::LinkSpec& wire) {
  LinkSpec link;
  link.latency = absl::Milliseconds(check.NonNegative(at + ".latency_ms", wire.latency_ms()));
  link.bandwidth =
      Bandwidth::BytesPerSecond(check.NonNegative(at + ".bandwidth", wire.bandwidth()));
  return link;
}

}  // namespace

v1::HostSpec ToProto(const HostSpec& host) {
  v1::HostSpec wire;
  wire.set_worker(host.worker.value());
  wire.set_address(host.address);
  wire.set_memory_total(host.memory_total.count());
  wire.set_budget(host.budget.count());
  wire.set_dram_bandwidth(host.dram_bandwidth.bytes_per_second());
  wire.set_disk_bandwidth(host.disk_bandwidth.bytes_per_second());
  wire.set_threads(host.threads);
  wire.set_cpu_flops(host.cpu_flops);
  for (const CpuRate& rate : host.cpu_rates) {
    v1::CpuRate& out = *wire.add_cpu_rates();
    out.set_tokens(rate.tokens);
    out.set_weights(rate.weights.bytes_per_second());
    out.set_beside_copies(rate.beside_copies.bytes_per_second());
  }
  for (const DeviceSpec& device : host.devices) {
    v1::DeviceSpec& out = *wire.add_devices();
    out.set_id(device.id.value());
    out.set_kind(static_cast<v1::DeviceKind>(static_cast<int>(device.kind) + 1));
    out.set_name(device.name);
    out.set_memory_total(device.memory_total.count());
    out.set_budget(device.budget.count());
    out.set_overhead(device.overhead.count());
    out.set_memory_bandwidth(device.memory_bandwidth.bytes_per_second());
    out.set_h2d_bandwidth(device.h2d_bandwidth.bytes_per_second());
    out.set_prefill_flops(device.prefill_flops);
    out.set_direct_products(device.direct_products);
    if (device.times.measured()) *out.mutable_times() = ToProto(device.times);
  }
  return wire;
}

absl::StatusOr<HostSpec> FromProto(const v1::HostSpec& wire) {
  FieldCheck check;
  HostSpec host = HostFromProto(check, "HostSpec", wire);
  if (!check.ok()) return check.status();
  return host;
}

v1::ClusterSpec ToProto(const ClusterSpec& cluster) {
  v1::ClusterSpec wire;
  for (const HostSpec& host : cluster.hosts) *wire.add_hosts() = ToProto(host);
  *wire.mutable_remote() = LinkToProto(cluster.remote);
  *wire.mutable_local() = LinkToProto(cluster.local);
  return wire;
}

absl::StatusOr<ClusterSpec> FromProto(const v1::ClusterSpec& wire) {
  FieldCheck check;
  ClusterSpec cluster;
  for (int i = 0; i < wire.hosts_size(); ++i) {
    const std::string at = absl::StrCat("ClusterSpec.hosts[", i, "]");
    cluster.hosts.push_back(HostFromProto(check, at, wire.hosts(i)));
  }
  if (wire.has_remote()) cluster.remote = LinkFromProto(check, "ClusterSpec.remote", wire.remote());
  if (wire.has_local()) cluster.local = LinkFromProto(check, "ClusterSpec.local", wire.local());
  if (!check.ok()) return check.status();
  return cluster;
}

}  // namespace millrace
