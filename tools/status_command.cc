// millrace status: the cluster's workers, devices, budgets, plan and rates.
#include <cstdio>
#include <memory>

#include "planner/plan_report.h"
#include "proto/bytes.h"
#include "proto/convert.h"
#include "proto/plan_json.h"
#include "proto/status_macros.h"
#include "tools/cli_io.h"
#include "tools/commands.h"
#include "tools/planner_client.h"

namespace millrace {
namespace {

struct StatusFlags {
  std::string planner = "127.0.0.1:7600";
  bool json = false;
};

void PrintMember(const v1::MemberStatus& member) {
  std::printf("%-16s %-21s %-8s %6lld %10s %10s  %s\n", member.name().c_str(),
              member.host().address().c_str(),
              member.live() ? member.worker().state().c_str() : "lost",
              static_cast<long long>(member.worker().epoch()),
              FormatBytes(Bytes(member.worker().resident_bytes())).c_str(),
              FormatBytes(Bytes(member.host().budget())).c_str(), member.detail().c_str());
  for (const v1::DeviceSpec& device : member.host().devices()) {
    std::printf("  %-14s %s, budget %s, memory %s\n", device.id().c_str(), device.name().c_str(),
                FormatBytes(Bytes(device.budget())).c_str(),
                FormatBandwidth(Bandwidth::BytesPerSecond(device.memory_bandwidth())).c_str());
  }
  if (!member.worker().has_engine()) return;
  const v1::EngineStats& engine = member.worker().engine();
  std::printf("  leads: %d running, %d queued, %d slots; %lld tokens made, %.1f tokens/s now\n",
              engine.running(), engine.queued(), engine.slots(),
              static_cast<long long>(engine.generated_tokens()), engine.decode_tokens_per_second());
}

absl::StatusOr<int> RunStatus(const StatusFlags& flags) {
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<PlannerClient> client,
                            PlannerClient::Connect(flags.planner));
  MILLRACE_ASSIGN_OR_RETURN(const v1::ClusterStatus status, client->Status());
  if (flags.json) {
    std::printf("%s\n", MessageToJson(status, false).c_str());
    return kExitDone;
  }
  std::printf("planner %s at %s: %s%s%s, %d generation%s running\n", status.version().c_str(),
              flags.planner.c_str(), status.state().c_str(), status.detail().empty() ? "" : ", ",
              status.detail().c_str(), status.generations(), status.generations() == 1 ? "" : "s");
  std::printf("%-16s %-21s %-8s %6s %10s %10s\n", "worker", "address", "state", "epoch", "resident",
              "budget");
  for (const v1::MemberStatus& member : status.members()) PrintMember(member);
  if (status.has_plan()) {
    MILLRACE_ASSIGN_OR_RETURN(const PlacementPlan plan, FromProto(status.plan()));
    std::printf("\n%s", RenderPlanTable(plan).c_str());
  }
  return kExitDone;
}

}  // namespace

void AddStatusCommand(CLI::App& app, Command& chosen) {
  auto flags = std::make_shared<StatusFlags>();
  CLI::App* sub = app.add_subcommand("status", "a cluster's workers, devices, budgets and plan");
  sub->add_option("--planner", flags->planner, "host:port of the millrace-planner")
      ->capture_default_str();
  sub->add_flag("--json", flags->json, "print one JSON object");
  sub->callback([flags, &chosen] { chosen = [flags] { return RunStatus(*flags); }; });
}

}  // namespace millrace
