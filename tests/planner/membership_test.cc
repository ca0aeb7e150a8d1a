#include "planner/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::HasSubstr;

class MembershipTest : public ::testing::Test {
 protected:
  static HostSpec Host(const std::string& name) {
    HostSpec host;
    host.worker = WorkerId(name);
    host.address = name + ":1";
    return host;
  }

  std::vector<std::string> lost_;
  Membership membership_{absl::Seconds(3), [this](const WorkerId& worker, const std::string& why) {
                           lost_.push_back(worker.value() + ": " + why);
                         }};
  const absl::Time start_ = absl::FromUnixSeconds(1000);
  const WorkerId w0_{"w0"};
};

TEST_F(MembershipTest, ALeaseRunsOutWithoutHeartbeats) {
  const uint64_t session = *membership_.Join(Host("w0"), Epoch{}, start_);
  EXPECT_TRUE(membership_.Heartbeat(w0_, session, {}, start_ + absl::Seconds(2)));
  membership_.ExpireLeases(start_ + absl::Seconds(5));
  EXPECT_EQ(membership_.Live().size(), 1u);
  membership_.ExpireLeases(start_ + absl::Seconds(5.1));
  EXPECT_EQ(membership_.Live().size(), 0u);
  EXPECT_THAT(lost_, testing::ElementsAre(HasSubstr("no heartbeat")));
  EXPECT_FALSE(membership_.Heartbeat(w0_, session, {}, start_ + absl::Seconds(6)));
}

TEST_F(MembershipTest, ALiveNameIsNotTakenTwice) {
  ASSERT_TRUE(membership_.Join(Host("w0"), Epoch{}, start_).ok());
  const absl::Status second = membership_.Join(Host("w0"), Epoch{}, start_).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.message()), HasSubstr("w0:1"));
}

TEST_F(MembershipTest, TheEndOfAnOldSessionDoesNotHarmTheNewOne) {
  const uint64_t old_session = *membership_.Join(Host("w0"), Epoch{}, start_);
  membership_.End(w0_, old_session, "broken");
  const uint64_t session = *membership_.Join(Host("w0"), Epoch{4}, start_);
  EXPECT_NE(session, old_session);
  membership_.End(w0_, old_session, "broken again");
  EXPECT_TRUE(membership_.IsLive(w0_, session));
  EXPECT_EQ(membership_.Find(w0_)->loaded, Epoch{4});
  EXPECT_EQ(lost_.size(), 1u);
}

TEST_F(MembershipTest, AWorkerThatLeavesIsForgottenALostOneIsRemembered) {
  const uint64_t session = *membership_.Join(Host("w0"), Epoch{}, start_);
  membership_.End(w0_, session, std::nullopt);
  EXPECT_TRUE(membership_.All().empty());
  const uint64_t again = *membership_.Join(Host("w0"), Epoch{}, start_);
  membership_.End(w0_, again, "killed");
  ASSERT_EQ(membership_.All().size(), 1u);
  EXPECT_EQ(membership_.All()[0].lost_because, "killed");
  ASSERT_TRUE(membership_.Join(Host("w1"), Epoch{}, start_ + absl::Hours(2)).ok());
  EXPECT_EQ(membership_.All().size(), 1u);  // forgotten after an hour
}

TEST_F(MembershipTest, NamelessWorkersAreRefused) {
  EXPECT_THAT(std::string(membership_.Join(Host(""), Epoch{}, start_).status().message()),
              HasSubstr("host.worker"));
}

}  // namespace
}  // namespace millrace
