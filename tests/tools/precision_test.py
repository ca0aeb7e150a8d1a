#!/usr/bin/env python3
"""--precision auto and `millrace calibrate` on the command line; figures where ../shared is there.

Usage: precision_test.py MILLRACE_BINARY (from the repository root).
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import unittest

BINARY = None
MODEL = "deploy/models/quill-7m-f16.gguf"
MODELS = pathlib.Path("../shared/models")
# Bytes of a weight.
UNIFORM = {"DTYPE_Q8_0": 34 / 32, "DTYPE_Q6_K": 210 / 256, "DTYPE_Q5_K": 176 / 256,
           "DTYPE_Q4_K": 144 / 256}


def millrace(*args, timeout=300):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=timeout)


class PrecisionTest(unittest.TestCase):
    def json(self, *args):
        result = millrace(*args, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout)

    def expect(self, code, needles, *args):
        result = millrace(*args)
        self.assertEqual(result.returncode, code, result.stderr)
        for needle in needles:
            self.assertIn(needle, result.stderr)

    def weights(self, plan):
        return sum(int(b["weights"]) for b in plan["blocks"])

    def types(self, plan):
        return {t["tensor"]: t["dtype"] for b in plan["blocks"] for t in b["stored_types"]}

    def matrices(self):
        tensors = self.json("inspect", MODEL)["tensors"]
        return {t["name"]: math.prod(t["shape"]) for t in tensors if len(t["shape"]) == 2}

    def test_bad_flags_name_flag_and_value(self):
        plan = ("plan", MODEL, "--devices", "cpu")
        auto = (*plan, "--precision", "auto")
        self.expect(2, ["--precision", "'low'"], *plan, "--precision", "low")
        self.expect(2, ["--min-precision", "--precision auto"], *plan, "--min-precision", "a=q8_0")
        self.expect(2, ["--weight-memory", "--precision auto"], *plan, "--weight-memory", "60%")
        self.expect(2, ["--min-precision", "'blk.*=q4_0'"], *auto, "--min-precision", "blk.*=q4_0")
        self.expect(2, ["'blk.*.w=q8_0' matches no tensor"], *auto, "--min-precision", "blk.*.w=q8_0")
        self.expect(2, ["--weight-memory", "'0%'"], *auto, "--weight-memory", "0%")
        self.expect(2, ["--weight-memory", "lowest types"], *auto, "--weight-memory", "10%")
        self.expect(2, ["--weight-memory", "lots"], *auto, "--weight-memory", "lots")
        self.expect(1, ["/no/file.json"], *auto, "--sensitivity", "/no/file.json")
        self.expect(2, ["--precision", "--planner"], *auto[:2], *auto[4:], "--planner", "h:1")

    def test_weights_are_held_in_what_they_may_take(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/plan.json"
            flags = ("plan", MODEL, "--devices", "cpu", "--ctx", 128)
            kept = self.json(*flags)
            self.assertEqual(self.types(kept), {})
            plan = self.json(*flags, "--precision", "auto", "--weight-memory", "40%", "-o", path)
            share = self.weights(plan) / self.weights(kept)
            self.assertTrue(0.38 < share <= 0.40, share)
            self.assertEqual(plan["model_fingerprint"], kept["model_fingerprint"])
            text = millrace("plan", "show", path, "--explain").stdout
            for needle in ("precision: ", "converted", "converted when loaded", "blk.N.attn_v"):
                self.assertIn(needle, text)
            run = self.json("run", MODEL, "--plan", path, "-p", "Once", "-n", 4, "--temp", 0)
            self.assertEqual(len(run["tokens"]), 4)
            self.expect(2, ["--precision", "--plan"], "run", MODEL, "--plan", path, "--precision",
                        "auto", "-p", "Once")
            pinned = self.json(*flags, "--precision", "auto", "--weight-memory", "40%",
                               "--min-precision", "blk.*.attn_q=f16", "--min-precision",
                               "blk.*.ffn_down=q8_0")
            self.assertFalse(any("attn_q" in name for name in self.types(pinned)))
            down = {t for name, t in self.types(pinned).items() if "ffn_down" in name}
            self.assertEqual(down, {"DTYPE_Q8_0"})

    def test_what_does_not_fit_is_lowered_until_it_does(self):
        flags = ("plan", MODEL, "--devices", "cpu", "--ctx", 128)
        kept = self.json(*flags)
        used = int(kept["totals"][0]["used"])
        short = (*flags, "--host-memory", f"{used - self.weights(kept) // 3}B")
        self.assertEqual(millrace(*short).returncode, 3)
        self.assertEqual(millrace(*short, "--precision", "keep").returncode, 3)
        plan = self.json(*short, "--precision", "auto")
        self.assertGreater(len(self.types(plan)), 0)
        # What the process itself takes is measured each time and differs by some pages.
        self.assertLess(self.weights(plan), 0.75 * self.weights(kept))
        self.assertEqual(self.types(self.json(*flags, "--precision", "auto")), {})

    @unittest.skipUnless((MODELS / "quill-7m-q4_k_m.gguf").exists(), f"{MODELS} is not here")
    def test_quantised_files_stay_as_they_are(self):
        file = MODELS / "quill-7m-q4_k_m.gguf"
        flags = ("plan", file, "--devices", "cpu", "--precision", "auto")
        self.assertEqual(self.types(self.json(*flags, "--weight-memory", "100%")), {})
        self.expect(2, ["--weight-memory"], *flags, "--weight-memory", "90%")

    def test_calibrate_writes_what_auto_reads(self):
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "quill.gguf"
            model.symlink_to(pathlib.Path(MODEL).resolve())
            text, path = pathlib.Path(folder) / "text.txt", f"{model}.sensitivity.json"
            text.write_text("Fellow citizens, I am again called upon by the voice of my country. " * 20)
            calibrate = ("calibrate", model, "--text", text, "--ctx", 64, "--windows", 2,
                         "--devices", "cpu")
            out = self.json(*calibrate)
            self.assertEqual(json.loads(pathlib.Path(path).read_text()), out)
            self.assertEqual(len(out["groups"]), 22)
            self.assertEqual(sum(g["weights"] for g in out["groups"]), sum(self.matrices().values()))
            self.assertTrue(all(g["divergence"] > 0 for g in out["groups"]))
            auto = ("plan", model, "--devices", "cpu", "--precision", "auto", "--weight-memory",
                    "35%")
            self.expect(0, [f"by {path}"], *auto)
            self.expect(0, ["by the default table"], *(MODEL if a == model else a for a in auto))
            # Twice the same.
            self.assertEqual(self.json(*calibrate), out)
            for spoil, needles in (
                    (lambda f: f.update(format="x"), ["'format'", "millrace calibrate"]),
                    (lambda f: f.update(version=7), ["'version'"]),
                    (lambda f: f.update(model_fingerprint="0"), ["'model_fingerprint'"]),
                    (lambda f: f.update(kv_q8_0=-1), ["'kv_q8_0'"]),
                    (lambda f: f.update(groups={}), ["'groups'"]),
                    (lambda f: f["groups"].pop(), ["'groups'", "has no entry for role"]),
                    (lambda f: f["groups"][3].update(role="x"), ["groups[3]", "'role'"]),
                    (lambda f: f["groups"][3].update(divergence="x"), ["groups[3]", "divergence"]),
                    (lambda f: f["groups"].append(f["groups"][0]), ["groups[22]", "twice"])):
                bad = json.loads(json.dumps(out))
                spoil(bad)
                pathlib.Path(path).write_text(json.dumps(bad))
                self.expect(1, [path, *needles], *auto)
            pathlib.Path(path).write_text("{")
            self.expect(1, [path], *auto)
        self.expect(2, ["-o"], "calibrate", "--text", MODEL)
        self.expect(2, ["--precision"], "calibrate", MODEL, "--text", MODEL, "--precision", "auto")

    # What the issue asks to show: a table of it is in docs/precision.md.
    @unittest.skipUnless((MODELS / "quill-valid.txt").exists(), f"{MODELS} is not here")
    def test_auto_is_no_worse_than_uniform_types_of_its_size(self):
        with tempfile.TemporaryDirectory() as folder:
            log_probs = f"{folder}/log_probs.txt"

            def evaluate(*flags):
                out = self.json("eval", MODEL, "--text", MODELS / "quill-valid.txt", "--log-probs",
                                log_probs, *flags)
                self.assertEqual(out["windows"], 88)
                scored = [float(x) for x in pathlib.Path(log_probs).read_text().split()]
                self.assertEqual(len(scored), out["scored"])
                return out["perplexity"], scored, out["weight_bytes"]

            def divergence(scored):
                return sum((x - y) ** 2 for x, y in zip(scored, as_is)) / (2 * len(as_is))

            # Two standard errors of the difference of two perplexities.
            def noise(a, b):
                squares = sum((x - y) ** 2 for x, y in zip(a[1], b[1])) / len(a[1])
                return 2 * math.sqrt(squares / len(a[1])) * b[0]

            def uniform(dtype):
                plan = self.json("plan", MODEL, "--devices", "cpu", "--ctx", 512)
                names = self.matrices()
                for block in plan["blocks"]:
                    prefix, _, half = block["name"].rpartition(".")
                    for name in names:
                        table = name == "token_embd.weight" and block["name"] in ("embed", "head")
                        if table or (prefix and name.startswith(f"{prefix}.{half}")):
                            block["stored_types"].append({"tensor": name, "dtype": dtype})
                self.assertEqual(self.types(plan), {name: dtype for name in names})
                path = f"{folder}/{dtype}.json"
                pathlib.Path(path).write_text(json.dumps(plan))
                return evaluate("--plan", path)

            as_is_perplexity, as_is, all_bytes = evaluate("--devices", "cpu")
            auto = ("--devices", "cpu", "--precision", "auto", "--weight-memory")
            fixed = all_bytes - 2 * sum(self.matrices().values())
            sixty = evaluate(*auto, "60%")
            self.assertLessEqual(sixty[2], 0.6 * all_bytes)
            for dtype, per_weight in UNIFORM.items():
                with self.subTest(dtype):
                    size = fixed + int(per_weight * sum(self.matrices().values()))
                    same_type = uniform(dtype)
                    same_size = evaluate(*auto, f"{size}B")
                    self.assertLessEqual(same_size[2], size)
                    for mine in (sixty, same_size):
                        self.assertLessEqual(mine[0], same_type[0] + noise(mine, same_type))
                        self.assertLessEqual(divergence(mine[1]), divergence(same_type[1]) * 1.001)
            self.assertLess(sixty[0], 1.0005 * as_is_perplexity)


if __name__ == "__main__":
    BINARY = sys.argv.pop(1)
    unittest.main()
