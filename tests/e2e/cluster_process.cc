#include "tests/e2e/cluster_process.h"

#include <fcntl.h>
#include <grpcpp/generic/generic_stub.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "proto/grpc_status.h"
#include "proto/grpc_transport.h"
#include "proto/status_macros.h"

extern char** environ;

namespace millrace {
namespace {

constexpr absl::Duration kStart = absl::Seconds(20);
constexpr absl::Duration kCall = absl::Seconds(60);

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& command, const std::string& log)
    : log_(log) {
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  MILLRACE_CHECK(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
}

ChildProcess::~ChildProcess() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void ChildProcess::Signal(int number) const { kill(pid_, number); }

int ChildProcess::Wait(absl::Duration timeout) {
  const absl::Time give_up = absl::Now() + timeout;
  int status = 0;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (absl::Now() > give_up) return -1;
    absl::SleepFor(absl::Milliseconds(5));
  }
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string ChildProcess::Log() const { return ReadFile(log_); }

TestCluster::TestCluster() {
  folder_ = (std::filesystem::temp_directory_path() / "millrace-e2e-XXXXXX").string();
  MILLRACE_CHECK(mkdtemp(folder_.data()) != nullptr);
  const std::string port_file = folder_ + "/planner.port";
  planner_ = std::make_unique<ChildProcess>(
      std::vector<std::string>{MILLRACE_PLANNER_BINARY, "--listen", "127.0.0.1:0", "--port-file",
                               port_file},
      folder_ + "/planner.log");
  const absl::Time give_up = absl::Now() + kStart;
  while (ReadFile(port_file).empty() && absl::Now() < give_up) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  const int port = std::atoi(ReadFile(port_file).c_str());
  MILLRACE_CHECK(port > 0);
  planner_address_ = absl::StrCat("127.0.0.1:", port);
  stub_ = v1::PlannerService::NewStub(MakeChannel(planner_address_));
}

TestCluster::~TestCluster() {
  workers_.clear();
  planner_.reset();
  std::filesystem::remove_all(folder_);
}

void TestCluster::StartWorker(const std::string& name, const std::string& memory,
                              const std::vector<std::string>& args) {
  workers_.erase(name);
  std::vector<std::string> command = {MILLRACE_WORKER_BINARY,
                                      "--name",
                                      name,
                                      "--listen",
                                      "127.0.0.1:0",
                                      "--planner",
                                      planner_address_,
                                      "--host-memory",
                                      memory,
                                      "--threads",
                                      "1"};
  if (std::find(args.begin(), args.end(), "--devices") == args.end()) {
    command.insert(command.end(), {"--devices", "cpu"});  // whatever the machine has
  }
  command.insert(command.end(), args.begin(), args.end());
  workers_[name] =
      std::make_unique<ChildProcess>(command, absl::StrCat(folder_, "/", name, ".log"));
}

bool TestCluster::WaitFor(const std::function<bool(const v1::ClusterStatus&)>& condition,
                          absl::Duration timeout) {
  const absl::Time give_up = absl::Now() + timeout;
  while (!condition(Status())) {
    if (absl::Now() > give_up) return false;
    absl::SleepFor(absl::Milliseconds(20));
  }
  return true;
}

bool TestCluster::WaitForWorkers(int count) {
  return WaitFor([count](const v1::ClusterStatus& status) {
    int live = 0;
    for (const v1::MemberStatus& member : status.members()) live += member.live();
    return live == count;
  });
}

absl::StatusOr<v1::LoadEvent> TestCluster::Load(const v1::LoadRequest& request) {
  grpc::ClientContext context;
  SetTimeout(context, kCall);
  const auto reader = stub_->Load(&context, request);
  v1::LoadEvent event, last;
  while (reader->Read(&event)) last = event;
  MILLRACE_RETURN_IF_ERROR(FromGrpcStatus(reader->Finish()));
  return last;
}

Generated TestCluster::Generate(const v1::GenerateRequest& request,
                                const std::function<void(int)>& on_token) {
  Generated generated;
  const absl::Time start = absl::Now();
  grpc::ClientContext context;
  SetTimeout(context, kCall);
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateEvent event;
  while (reader->Read(&event)) {
    if (event.has_done()) generated.summary = event.done();
    if (!event.has_token()) continue;
    const auto count = static_cast<int64_t>(generated.tokens.size());
    generated.offsets_in_order &= event.token().offset() == count;
    generated.tokens.push_back(event.token().token());
    if (on_token) on_token(static_cast<int>(count) + 1);
  }
  generated.status = FromGrpcStatus(reader->Finish());
  generated.took = absl::Now() - start;
  return generated;
}

v1::ClusterStatus TestCluster::Status() {
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(5));
  v1::ClusterStatus status;
  stub_->Status(&context, v1::ClusterStatusRequest(), &status);
  return status;
}

std::string TestCluster::Logs() const {
  std::string logs = absl::StrCat("-- planner\n", planner_->Log());
  for (const auto& [name, worker] : workers_)
    absl::StrAppend(&logs, "-- ", name, "\n", worker->Log());
  return logs;
}

// Debian ships no generated code for the health messages: HealthCheckRequest is one string, field
// 1; HealthCheckResponse one enum, field 1
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
int Health(const std::string& address, const std::string& service) {
  grpc::GenericStub stub(MakeChannel(address));
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(5));
  const std::string wire =
      absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())), service);
  const grpc::Slice slice(wire);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check",
                                          grpc::ByteBuffer(&slice, 1), &queue);
  call->StartCall();
  grpc::ByteBuffer answer;
  grpc::Status status;
  call->Finish(&answer, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  if (!queue.Next(&tag, &ok) || !ok || !status.ok()) return -1;
  grpc::Slice bytes;
  if (!answer.DumpToSingleSlice(&bytes).ok() || bytes.size() != 2) return -1;
  return bytes.begin()[1];
}

std::vector<GoldenCase> ReadGoldens() {
  std::ifstream file("../shared/models/quill-7m-goldens.json");
  std::vector<GoldenCase> goldens;
  if (!file) return goldens;
  const nlohmann::json json = nlohmann::json::parse(file);
  for (const auto& entry : json["cases"]) {
    goldens.push_back({entry["prompt"], entry["ids"], entry["greedy"], entry["last_logits"]});
  }
  return goldens;
}

v1::GenerateRequest GreedyRequest(const GoldenCase& golden, int tokens) {
  v1::GenerateRequest request;
  request.mutable_tokens()->Add(golden.ids.begin(), golden.ids.end());
  request.set_max_tokens(tokens);
  request.mutable_sampling()->set_temperature(0);
  request.set_ignore_end_of_generation(true);
  return request;
}

}  // namespace millrace
