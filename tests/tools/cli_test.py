#!/usr/bin/env python3
"""The command line's contract: exit codes, messages, JSON shapes; figures where ../shared is there.

Usage: cli_test.py MILLRACE_BINARY (from the repository root).
"""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml

BINARY = None
SHARED = pathlib.Path("../shared")
GOLDENS = SHARED / "models/quill-7m-goldens.json"


def millrace(*args, timeout=60):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=timeout)


class UsageTest(unittest.TestCase):
    def expect(self, code, needles, *args):
        result = millrace(*args)
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        for needle in needles:
            self.assertIn(needle, result.stderr)

    def test_bad_values_name_flag_and_value(self):
        self.expect(2, ["--ctx", "abc"], "plan", "--ctx", "abc")
        self.expect(2, ["--slots"], "plan", "--slots", "0")
        self.expect(2, ["--kv-type", "q9"], "plan", "--kv-type", "q9")
        self.expect(2, ["--host-memory", "lots"], "plan", "--host-memory", "lots")
        self.expect(2, ["--devices", "tpu7"], "plan", "--devices", "tpu7")
        self.expect(2, ["--devices", "gpu99"], "plan", "--devices", "gpu99:1GiB,gpu99:1GiB")
        self.expect(2, ["--pin", "blk.0.ffn"], "plan", "--pin", "blk.0.ffn")
        self.expect(2, ["--workers", "w0"], "plan", "--workers", "w0")
        self.expect(2, ["--tokens", "x"], "logits", "--tokens", "1,x")
        self.expect(2, ["--objective", "'quick'", "mix:PROMPT+TOKENS"], "plan", "--objective", "quick")
        self.expect(2, ["8 sequences", "slots is 1"], "plan", "--objective", "decode:8")
        self.expect(2, ["prompt of 999", "--ctx"], "plan", "--ctx", 64, "--objective", "prefill:999")
        self.expect(2, ["-p"], "run")
        self.expect(2, [], "fly")

    def test_bad_descriptions_of_machines_name_the_part_and_list_what_there_is(self):
        host = "ddr5-desktop 64GiB"
        self.expect(2, ["'2x RTX-9'", "rtx-3090"], "plan", "--hardware", f"2x RTX-9, {host}")
        self.expect(2, ["no host", "ddr4-desktop"], "plan", "--hardware", "rtx-3090")
        self.expect(2, ["'ddr5-desktop' lacks"], "plan", "--hardware", "rtx-3090, ddr5-desktop")
        self.expect(2, ["'pcie9x1'"], "plan", "--hardware", f"rtx-3090, {host}, pcie9x1")
        self.expect(2, ["--devices", "--hardware"], "plan", "--hardware", host, "--devices", "cpu")
        self.expect(2, ["--quant"], "plan", "--shape", "llama-3.1-8b")
        self.expect(2, ["llama-3.1-70b"], "plan", "--shape", "llama-9", "--quant", "Q4_K_M")
        self.expect(2, ["--what-if", "'gpu0'"], "plan", "--what-if", "gpu0")
        self.expect(2, ["'pcie=9x1'"], "plan", "--what-if", "pcie=9x1")
        self.expect(2, ["gpu7", "cpu, host"], "plan", "--hardware", host, "--what-if", "gpu7=1GiB")
        self.expect(2, ["rtx-5090"], "plan", "--hardware", host, "--what-if", "add=rtx-9")
        self.expect(2, ["--what-if and -o"], "plan", "--what-if", "host=1GiB", "-o", "plan.json")
        self.expect(1, ["/no/host.json"], "plan", "--hardware-file", "/no/host.json")

    def test_missing_files_are_named(self):
        self.expect(1, ["/no/such.gguf"], "inspect", "/no/such.gguf")
        self.expect(1, ["/no/text"], "eval", "--text", "/no/text")
        self.expect(1, ["BEFORE", "/no/a.json"], "plan", "diff", "/no/a.json", "/no/b.json")

    def test_plan_diff_names_file_and_field(self):
        with tempfile.TemporaryDirectory() as folder:
            good, bad = f"{folder}/good.json", pathlib.Path(folder) / "bad.json"
            self.assertEqual(millrace("plan", "--ctx", 128, "-o", good).returncode, 0)
            plan = json.loads(pathlib.Path(good).read_text())
            plan["format_version"] = 99
            bad.write_text(json.dumps(plan))
            self.expect(2, ["AFTER", str(bad), "format_version"], "plan", "diff", good, bad)
            self.expect(2, ["plan diff", "AFTER"], "plan", "diff", good)
            self.expect(2, ["--ctx", "plan diff"], "plan", "--ctx", 128, "diff", good, good)
            self.expect(2, [good, "plan diff"], "plan", "diff", good, good, good)
            self.expect(1, ["./diff"], "plan", "./diff")

    def test_unreachable_planner_is_named_within_five_seconds(self):
        result = millrace("status", "--planner", "127.0.0.1:1", timeout=5)
        self.assertEqual(result.returncode, 1)
        self.assertIn("127.0.0.1:1", result.stderr)


class JsonTest(unittest.TestCase):
    def json(self, *args, timeout=60):
        result = millrace(*args, "--json", timeout=timeout)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def test_inspect(self):
        out = self.json("inspect")
        self.assertEqual((out["architecture"], out["layers"], out["vocab"]), ("llama", 8, 4096))
        self.assertEqual(sum(t["bytes"] for t in out["tensors"]), out["weight_bytes"])

    def test_plan_round_trip_and_refusal(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/plan.json"
            out = self.json("plan", "--ctx", 256, "-o", path)
            self.assertEqual(out["context"], 256)
            self.assertGreater(len(out["ledger"]), 0)
            self.assertGreater(out["predicted"]["time_per_token_ms"], 0)
            text = self.json("run", "--plan", path, "-p", "Once", "-n", 4, "--temp", 0)
            self.assertEqual(len(text["tokens"]), 4)
            refused = millrace("run", "--plan", path, "--ctx", 128, "-p", "Once")
            self.assertEqual(refused.returncode, 1)
            self.assertIn("context", refused.stderr)

    def test_plan_for_an_objective(self):
        text = millrace("plan", "--slots", 2, "--objective", "mix:64+32@2").stdout
        self.assertIn("then 32 tokens, 2 sequences decoding together", text)
        plan = self.json("plan", "--slots", 2, "--objective", "mix:64+32@2", "--json")
        self.assertEqual(plan["objective"], {"batch": 2, "decode_tokens": 32, "prompt_tokens": 64})
        self.assertGreater(plan["predicted"]["objective_ms"], 32 * plan["predicted"]["time_per_token_ms"])

    def test_plan_verify_runs_the_plan(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/plan.json"
            plan = self.json("plan", "--devices", "cpu", "--ctx", 64, "--slots", 2, "-o", path, "--json")
            checks = self.json("plan", "verify", path, "--tokens", 8, "--json")["checks"]
            self.assertEqual(len(checks), 4)
            for check in checks:
                self.assertGreater(check["predicted"], 0, check)
                self.assertGreater(check["measured"], 0, check)
            self.assertAlmostEqual(checks[1]["predicted"], plan["predicted"]["time_per_token_ms"])
            ledger = {e["purpose"]: int(e["bytes"]) for e in plan["ledger"]}
            beside = sum(v for k, v in ledger.items() if k != "PURPOSE_OVERHEAD") / 2**20
            self.assertAlmostEqual(checks[3]["predicted"], beside)
            self.assertLess(checks[3]["measured"], 1.1 * beside)
            self.assertIn("predicted", millrace("plan", "verify", path, "--tokens", 4).stdout)
            missing = millrace("plan", "verify", path, f"{folder}/no.gguf")
            self.assertEqual(missing.returncode, 1)
            self.assertIn("no.gguf", missing.stderr)

    def test_plan_over_imagined_workers_splits(self):
        # Each worker has room for its process and half of what the rest takes, and a little.
        whole = self.json("plan", "--ctx", 256, "--devices", "cpu")
        sizes = {e["purpose"]: int(e["bytes"]) for e in whole["ledger"]}
        overhead = sizes.pop("PURPOSE_OVERHEAD")
        size = overhead + int(0.93 * sum(sizes.values()))
        out = self.json("plan", "--ctx", 256, "--workers", f"w0={size}B,w1={size}B")
        self.assertEqual({s["worker"] for s in out["stages"]}, {"w0", "w1"})

    def test_plan_picture(self):
        with tempfile.TemporaryDirectory() as folder:
            path, plan = pathlib.Path(folder) / "plan.svg", f"{folder}/plan.json"
            needed = int(self.json("plan", "--ctx", 128, "--devices", "cpu")["totals"][0]["used"])
            size = int(1.3 * needed)
            flags = ("plan", "--ctx", 128, "--devices", "cpu", "--host-memory", f"{size}B")
            total = self.json(*flags, "-o", path)["totals"][0]
            svg = path.read_bytes()
            boxes = [b for b in xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")
                     if b.get("class") not in ("background", "legend")]
            self.assertEqual(sum(b.get("class") == "block" for b in boxes), 18)
            free = [float(b.get("height")) for b in boxes if b.get("class") == "free"]
            whole = sum(float(b.get("height")) for b in boxes)
            share = 1 - int(total["used"]) / int(total["budget"])
            self.assertAlmostEqual(sum(free) / whole, share, delta=0.01)
            # From the plan's file it is the same picture.
            millrace(*flags, "-o", plan)
            self.json("plan", "show", plan, "-o", path)
            first, again = (xml.fromstring(s) for s in (svg, path.read_bytes()))
            self.assertEqual([t.text for t in first.iter() if "block" in (t.text or "")],
                             [t.text for t in again.iter() if "block" in (t.text or "")])
            shown = millrace("plan", "show", plan, "--explain")
            self.assertIn("ledger", shown.stdout)
            drawn = path.read_bytes()
            self.json("plan", "show", plan, "-o", path)
            self.assertEqual(path.read_bytes(), drawn)

    def test_plan_diff(self):
        with tempfile.TemporaryDirectory() as folder:
            a, b = f"{folder}/a.json", f"{folder}/b.json"
            before = self.json("plan", "--ctx", 128, "--devices", "cpu", "-o", a)
            self.json("plan", "--ctx", 256, "--devices", "cpu", "--host-memory", "1GiB", "-o", b)
            same = millrace("plan", "diff", a, a)
            self.assertEqual((same.returncode, same.stdout), (0, "the plans are the same\n"))
            self.assertTrue(self.json("plan", "diff", a, a)["same"])
            text = millrace("plan", "diff", a, b)
            self.assertEqual(text.returncode, 0, text.stderr)
            self.assertIn("context: 128 -> 256", text.stdout)
            diff = self.json("plan", "diff", a, b)
            self.assertEqual((diff["same"], diff["same_model"]), (False, True))
            lines = {line["what"]: line for line in diff["memory"]}
            self.assertEqual(lines["budget"]["after"], 1 << 30)
            kv = [int(e["bytes"]) for e in before["ledger"] if e["purpose"] == "PURPOSE_KV_CACHE"]
            self.assertEqual(lines["kv cache"]["before"], sum(kv))
            self.assertEqual(lines["kv cache"]["difference"], sum(kv))
            # Version 1 knows no shares of blocks.
            old = json.loads(pathlib.Path(a).read_text())
            old["format_version"] = 1
            for block in old["blocks"]:
                block.pop("cpu_shares", None)
            pathlib.Path(b).write_text(json.dumps(old))
            self.assertTrue(self.json("plan", "diff", a, b)["same"])

    def test_plan_of_a_shape_on_described_machines(self):
        question = ("plan", "--shape", "llama-3.1-70b", "--quant", "Q4_K_M", "--ctx", 16384)
        one = self.json(*question, "--hardware", "RTX-3090, ddr5-desktop 64GiB")
        two = self.json(*question, "--hardware", "2x rtx-3090, ddr5-desktop 64GiB, pcie4x16")
        rates = [p["predicted"]["decode_tokens_per_second"] for p in (one, two)]
        self.assertGreater(rates[1], 2 * rates[0])
        self.assertEqual([s["device"] for s in two["stages"]], ["gpu0", "gpu1"])
        text = millrace(*question, "--hardware", "rtx-3090, ddr5-desktop 64GiB").stdout
        self.assertIn("estimate: data sheet", text)
        profiles = millrace("plan", "--hardware", "list").stdout
        for name in ("rtx-5090", "h200", "ddr5-server-12ch", "pcie3x8", "measured on the reference"):
            self.assertIn(name, profiles)

    def test_gap_is_proven_or_names_the_solver(self):
        question = ("plan", "--shape", "llama-3.2-1b", "--quant", "Q4_K_M", "--ctx", 256,
                    "--hardware", "rtx-3090, ddr5-desktop 64GiB")
        result = millrace(*question, "--gap=10")
        if shutil.which("cbc"):
            self.assertIn("this plan is within 0.0% of the proven bound", result.stdout)
        else:
            self.assertEqual(result.returncode, 1)
            self.assertIn("coinor-cbc", result.stderr)

    def test_what_if_plans_both_machines(self):
        question = ("plan", "--shape", "llama-3.1-70b", "--quant", "Q4_K_M", "--ctx", 4096,
                    "--hardware", "rtx-3090, ddr5-desktop 64GiB")
        out = self.json(*question, "--what-if", "gpu0=12GiB,host=48GiB,pcie=4x8")
        rates = [out[p]["predicted"]["decode_tokens_per_second"] for p in ("as_is", "what_if")]
        self.assertGreater(rates[0], rates[1])
        budgets = {t["memory"]: int(t["budget"]) for t in out["what_if"]["totals"]}
        self.assertEqual(budgets, {"gpu0": 12 << 30, "host": 48 << 30})
        self.assertEqual(out["as_is"], self.json(*question))
        out = self.json(*question, "--what-if", "host=4GiB")
        self.assertIsNone(out["what_if"])
        text = millrace(*question, "--what-if", "add=rtx-3090").stdout
        for needle in ("as it is", "what if", "streamed to GPUs", "local/gpu1", "limited by"):
            self.assertIn(needle, text)
        text = millrace("plan", "--ctx", 256, "--devices", "cpu", "--what-if", "dram=200GB/s").stdout
        self.assertIn("local/cpu", text)

    def test_explain_says_what_more_would_buy(self):
        text = millrace("plan", "--shape", "llama-3.1-8b", "--quant", "Q8_0", "--ctx", 4096, "--explain",
                        "--hardware", "rtx-3090 6GiB, ddr4-desktop 4GiB, nvme-pcie3").stdout
        for needle in ("+1 GiB of local/gpu0", "+1 GiB of local/host", "+10% HBM", "+10% links",
                       "+10% DRAM", "+10% disk"):
            self.assertIn(needle, text)

    def test_plan_for_the_machine_of_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/host.json"
            self.assertEqual(millrace("probe", "--host-memory", "1GiB", "-o", path).returncode, 0)
            out = self.json("plan", "--ctx", 256, "--hardware-file", path)
            budgets = {t["memory"]: int(t["budget"]) for t in out["totals"]}
            self.assertTrue(all(b <= 1 << 30 or m.startswith("gpu") for m, b in budgets.items()))
            pathlib.Path(path).write_text('{"thread": 3}')
            refused = millrace("plan", "--hardware-file", path)
            self.assertEqual(refused.returncode, 2)
            self.assertIn(path, refused.stderr)

    def test_a_gguf_cut_after_its_table_can_be_planned_and_looked_at_not_run(self):
        model = pathlib.Path("deploy/models/quill-7m-f16.gguf")
        whole = model.read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            cut = pathlib.Path(folder) / "cut.gguf"
            cut.write_bytes(whole[:len(whole) // 2])
            looked = self.json("inspect", cut)
            self.assertEqual(looked["missing_bytes"], len(whole) - len(whole) // 2)
            self.assertEqual(looked["tensors"], self.json("inspect", model)["tensors"])
            question = ("--ctx", 256, "--hardware", "rtx-3090, ddr5-desktop 64GiB")
            plan = self.json("plan", cut, *question)
            expected = self.json("plan", model, *question)
            self.assertEqual(plan.pop("model"), str(cut))
            expected.pop("model")
            self.assertEqual(plan, expected)
            self.assertIn("only metadata is here", millrace("inspect", cut).stdout)
            for text in (millrace("plan", cut, *question).stdout,
                         millrace("plan", cut, *question, "--explain").stdout):
                self.assertIn(f"{cut}: only metadata is here", text)
            self.assertEqual(millrace("tokenize", cut, "-p", "Once").returncode, 0)
            for command in (("run", cut, "-p", "Once"), ("bench", cut), ("logits", cut, "--tokens", 1),
                            ("eval", cut, "--text", "README.md")):
                refused = millrace(*command)
                self.assertEqual(refused.returncode, 1, command)
                self.assertIn(str(cut), refused.stderr)
                self.assertIn(f" {len(whole) - len(whole) // 2} bytes (", refused.stderr)
                self.assertIn("download it again", refused.stderr)
            cut.write_bytes(whole[:1000])
            refused = millrace("plan", cut)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("cut short", refused.stderr)

    def test_plan_of_a_configuration_alone(self):
        config = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096,
                  "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
                  "head_dim": 128, "intermediate_size": 12288, "vocab_size": 151936,
                  "max_position_embeddings": 40960, "rms_norm_eps": 1e-6, "rope_theta": 1000000}
        machine = ("--ctx", 8192, "--hardware", "rtx-3090, ddr5-desktop 64GiB")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "config.json"
            path.write_text(json.dumps(config))
            expected = self.json("plan", "--shape", "qwen3-8b", "--quant", "Q4_K_M", *machine)
            expected.pop("model")
            for model in (path, folder):
                plan = self.json("plan", model, "--quant", "Q4_K_M", *machine)
                self.assertEqual(plan.pop("model"), f"{model} Q4_K_M (config only)")
                self.assertEqual(plan, expected)
            refused = millrace("plan", folder, *machine)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("--quant", refused.stderr)
            del config["vocab_size"]
            path.write_text(json.dumps(config))
            refused = millrace("plan", path, "--quant", "Q4_K_M", *machine)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"{path}: 'vocab_size'", refused.stderr)
            refused = millrace("plan", "model.gguf", "--quant", "Q4_K_M")
            self.assertEqual(refused.returncode, 2)
            self.assertIn("model.gguf", refused.stderr)

    def test_does_not_fit(self):
        result = millrace("plan", "--workers", "w0=1MiB", "--json")
        self.assertEqual(result.returncode, 3, result.stderr)
        self.assertIn("infeasible", json.loads(result.stdout))

    def test_run_fields_and_seed(self):
        args = ("run", "-p", "Fellow citizens", "-n", 12, "--seed", 5, "--ctx", 128)
        one, two = self.json(*args), self.json(*args)
        self.assertEqual(one["tokens"], two["tokens"])
        self.assertEqual(one["seed"], 5)
        for field in ("ttft_ms", "tpot_ms", "tokens_per_second"):
            self.assertGreater(one["timings"][field], 0)
            self.assertIn(field, one["predicted"])

    def test_trace_has_one_event_per_pass_in_order(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "trace.json"
            self.json("run", "-p", "Once", "-n", 5, "--temp", 0, "--ignore-eos", "--trace", path)
            events = json.loads(path.read_text())["traceEvents"]
            passes = [e for e in events if e["ph"] == "X"]
            self.assertEqual(len(passes), 5)  # the prompt gives the first token
            for earlier, later in zip(passes, passes[1:]):
                self.assertGreater(earlier["dur"], 0)
                self.assertGreaterEqual(later["ts"], earlier["ts"] + earlier["dur"])

    def test_bench_fields(self):
        out = self.json("bench", "--prompt", 16, "--gen", 48, "--batch", "1,2", "--repeat", 1)
        kinds = [(r["kind"], r["batch"]) for r in out["results"]]
        self.assertEqual(kinds, [("prefill", 1), ("decode", 1), ("decode", 2)])
        for row in out["results"]:
            rate = row["tokens_per_second"]
            self.assertTrue(0 < rate["min"] <= rate["median"] <= rate["max"])

    def test_bench_reads_long_prompts_in_one_pass_and_decodes_at_depth(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/plan.json"
            flags = ("--devices", "cpu", "--max-pass-tokens", 4096)
            self.json("plan", "--ctx", 4096, *flags, "-o", path)
            out = self.json("bench", "--plan", path, "--prompt", 4096, "--gen", 16, "--depth", 64,
                            "--repeat", 1)
        rows = [(r["kind"], r["tokens"], r["depth"]) for r in out["results"]]
        self.assertEqual(rows, [("prefill", 4096, 0), ("decode", 16, 64)])
        for row in out["results"]:
            self.assertGreater(row["percent_of_ceiling"], 0)
        self.assertEqual([d["id"] for d in out["devices"]], ["cpu"])

    def test_bench_beside_a_peer(self):
        with tempfile.TemporaryDirectory() as folder:
            peer = pathlib.Path(folder) / "llama-bench"
            rows = [{"n_prompt": 16, "n_gen": 0, "avg_ts": 5.0},
                    {"n_prompt": 0, "n_gen": 48, "avg_ts": 2.0}]
            peer.write_text(f"#!/bin/sh\necho \"$@\" >&2\necho '{json.dumps(rows)}'\n")
            peer.chmod(0o755)
            args = ("bench", "deploy/models/quill-7m-f16.gguf", "--devices", "cpu", "--prompt", 16,
                    "--gen", 48, "--batch", "1,2", "--repeat", 1, "--peer-llama-bench", peer)
            out = self.json(*args)
            self.assertEqual([r.get("peer_tokens_per_second") for r in out["results"]],
                             [5.0, 2.0, None])
            text = millrace(*args)
            self.assertIn("-ngl 0", text.stderr)
            self.assertEqual(text.stdout.count("not measured by llama-bench"), 1)

    def test_tokenize_there_and_back(self):
        tokens = self.json("tokenize", "-p", "ROMEO:\n But soft")["tokens"]
        back = self.json("tokenize", "--ids", ",".join(map(str, tokens)))
        self.assertEqual(back["text"], "ROMEO:\n But soft")

    @unittest.skipUnless(GOLDENS.exists(), f"{GOLDENS} is not here")
    def test_goldens(self):
        for case in json.loads(GOLDENS.read_text())["cases"]:
            ids = ",".join(map(str, case["ids"]))
            logits = self.json("logits", "--tokens", ids)["logits"]
            worst = max(abs(a - b) for a, b in zip(logits, case["last_logits"], strict=True))
            self.assertLess(worst, 0.02)
            out = self.json("run", "-p", case["prompt"], "--temp", 0, "-n", 48, "--ignore-eos")
            self.assertEqual(out["prompt_tokens"], case["ids"])
            self.assertEqual(out["tokens"], case["greedy"])

    @unittest.skipUnless((SHARED / "models").exists(), "../shared/models is not here")
    def test_perplexity_of_every_file_in_the_table(self):
        models = SHARED / "models"
        rows = re.findall(r"^\| (\w+) \| \d+ \| ([\d.]+) \|", (models / "README.md").read_text(), re.M)
        self.assertGreater(len(rows), 5)
        for name, perplexity in rows:
            with self.subTest(name):
                out = self.json("eval", models / f"quill-7m-{name}.gguf", "--text",
                                models / "quill-valid.txt", timeout=300)
                self.assertEqual(out["windows"], 88)
                expected = float(perplexity)
                self.assertAlmostEqual(out["perplexity"], expected, delta=0.005 * expected)


if __name__ == "__main__":
    BINARY = sys.argv.pop(1)
    unittest.main()
