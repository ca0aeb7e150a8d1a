#!/usr/bin/env python3
"""`millrace plan` asked of a planner prints what it prints by itself, byte for byte.

Usage: plan_query_test.py MILLRACE_BINARY PLANNER_BINARY WORKER_BINARY (from the repository root).
"""
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

MILLRACE = PLANNER = WORKER = None
DEMO = pathlib.Path("deploy/models/quill-7m-f16.gguf")
CARD = ("--hardware", "rtx-3090, ddr5-desktop 64GiB")
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 2048,
          "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
          "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128256,
          "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
          "tie_word_embeddings": True}


def millrace(*args, timeout=120):
    return subprocess.run([MILLRACE, *map(str, args)], capture_output=True, text=True,
                          timeout=timeout)


class PlanQueryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.path = pathlib.Path(cls.folder.name)
        port = cls.path / "port"
        cls.planner = subprocess.Popen([PLANNER, "--listen", "127.0.0.1:0", "--port-file", port],
                                       stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not (port.exists() and port.read_text().strip()):
            assert time.monotonic() < deadline, "the planner does not start"
            time.sleep(0.02)
        cls.address = f"127.0.0.1:{port.read_text().strip()}"

    @classmethod
    def tearDownClass(cls):
        cls.planner.terminate()
        cls.planner.wait(timeout=20)
        cls.folder.cleanup()

    def expect_same(self, code, *args):
        here = millrace("plan", *args)
        there = millrace("plan", *args, "--planner", self.address)
        self.assertEqual(here.returncode, code, here.stderr)
        self.assertEqual(there.returncode, code, there.stderr)
        self.assertEqual(there.stdout, here.stdout)
        self.assertEqual(there.stderr, here.stderr)
        return there.stdout

    def test_shapes_on_described_machines(self):
        shape = ("--shape", "llama-3.1-8b", "--quant", "Q8_0", "--ctx", 4096)
        small = ("--hardware", "rtx-3090 6GiB, ddr4-desktop 16GiB")
        self.assertIn("predicted", self.expect_same(0, *shape, *CARD))
        self.expect_same(0, *shape, *small)
        self.expect_same(0, *shape, *small, "--json")
        self.expect_same(0, *shape, *small, "--max-pass-tokens", 256, "--slots", 2,
                         "--kv-type", "q8_0", "--pin", "blk.*.ffn=host", "--expected-prompt", 100)
        self.expect_same(0, *shape, "--hardware", "ddr5-desktop 32GiB")
        self.expect_same(3, *shape, "--hardware", "ddr4-desktop 5GiB")
        self.expect_same(3, *shape, "--hardware", "ddr4-desktop 5GiB", "--json")

    def test_explanations(self):
        shape = ("--shape", "llama-3.2-3b", "--quant", "Q8_0", "--ctx", 2048, "--explain")
        text = self.expect_same(0, *shape, "--hardware", "rtx-3090 3GiB, ddr4-desktop 16GiB")
        self.assertIn("what more would buy", text)

    def test_what_if(self):
        shape = ("--shape", "llama-3.2-3b", "--quant", "Q8_0", "--ctx", 2048)
        small = ("--hardware", "rtx-3090 3GiB, ddr4-desktop 16GiB")
        for change in ("add=rtx-4090", "gpu0=6GiB,host=10GiB,pcie=4x8,dram=40GB/s", "disk=3GB/s"):
            self.expect_same(0, *shape, *small, "--what-if", change)
        self.expect_same(0, *shape, *small, "--what-if", "host=8GiB", "--json")
        refused = millrace("plan", *shape, *small, "--what-if", "gpu7=1GiB", "--planner",
                           self.address)
        self.assertEqual(refused.returncode, 2)
        self.assertIn("no memory 'gpu7' there; there is gpu0, host", refused.stderr)

    def test_models_of_which_only_metadata_is_here(self):
        cut = self.path / "cut.gguf"
        cut.write_bytes(DEMO.read_bytes()[:1 << 20])
        self.assertIn("only metadata is here", self.expect_same(0, cut, "--ctx", 256, *CARD))
        config = self.path / "config.json"
        config.write_text(json.dumps(CONFIG))
        self.assertIn("(config only)", self.expect_same(0, config, "--quant", "Q4_K_M", "--ctx",
                                                        1024, *CARD))
        self.expect_same(0, DEMO, "--ctx", 256, *CARD)

    def test_differences(self):
        a, b = self.path / "a.json", self.path / "b.json"
        for path, ctx in ((a, 256), (b, 512)):
            self.assertEqual(millrace("plan", DEMO, "--ctx", ctx, *CARD, "-o", path).returncode, 0)
        for pair in ((a, b), (b, a), (a, a)):
            for flags in ((), ("--json",)):
                here = millrace("plan", "diff", *pair, *flags)
                there = millrace("plan", "diff", *pair, *flags, "--planner", self.address)
                self.assertEqual((there.returncode, there.stdout), (0, here.stdout))
                self.assertEqual(here.returncode, 0, here.stderr)

    def test_plans_are_written(self):
        plan, picture = self.path / "plan.json", self.path / "plan.svg"
        for path in (plan, picture):
            done = millrace("plan", DEMO, "--ctx", 256, *CARD, "--planner", self.address, "-o", path)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(plan.read_text())["context"], 256)
        self.assertIn("<svg", picture.read_text())

    def test_workers_are_asked_and_watched(self):
        refused = millrace("plan", "--planner", self.address)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("no worker is registered", refused.stderr)
        watch = subprocess.Popen([MILLRACE, "plan", "watch", "quill-7m", "--ctx", "256", "--json",
                                  "--planner", self.address, "--events", "3"],
                                 stdout=subprocess.PIPE, text=True)
        first = json.loads(watch.stdout.readline())
        self.assertIn("no worker is registered", first["none"])
        worker = subprocess.Popen([WORKER, "--name", "w0", "--planner", self.address, "--devices",
                                   "cpu", "--host-memory", "256MiB"], stderr=subprocess.DEVNULL)
        try:
            second = json.loads(watch.stdout.readline())
            self.assertEqual(second["workers"], ["w0"])
            self.assertIn("worker 'w0' joined: 256 MiB", second["since"][0])
            text = millrace("plan", "quill-7m", "--ctx", 256, "--planner", self.address).stdout
            self.assertEqual(text, second["planned"]["text"])
            explained = millrace("plan", "--ctx", 256, "--planner", self.address, "--explain").stdout
            self.assertIn("+1 GiB of w0/cpu", explained)
            changed = millrace("plan", "--ctx", 256, "--planner", self.address, "--what-if",
                               "dram=200GB/s").stdout
            self.assertIn("w0/cpu", changed)
            cut = self.path / "only-here.gguf"
            cut.write_bytes(DEMO.read_bytes()[:1 << 20])
            sent = millrace("plan", cut, "--ctx", 256, "--planner", self.address)
            self.assertEqual(sent.returncode, 0, sent.stderr)
            self.assertIn("w0/cpu", sent.stdout)
            loaded = millrace("plan", "watch", "--planner", self.address, "--events", 1)
            self.assertIn("no model is loaded", loaded.stdout)
        finally:
            worker.terminate()
            worker.wait(timeout=20)
        third = json.loads(watch.stdout.readline())
        self.assertEqual(third["workers"], [])
        self.assertIn("worker 'w0' is gone", third["since"][0])
        self.assertEqual(watch.wait(timeout=20), 0)
        watch.stdout.close()


if __name__ == "__main__":
    MILLRACE, PLANNER, WORKER = sys.argv[1:4]
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
