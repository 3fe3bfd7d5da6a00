"""What the benchmark reads of processes, against processes whose use is known."""

import os
import subprocess
import sys
import time

from bench import procfs


def run_python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()
    assert process.returncode == 0


def test_cpu_of_a_process_covers_its_children_before_and_after_their_end() -> None:
    burn = "import time\nuntil = time.process_time() + 0.3\nwhile time.process_time() < until: pass"
    code = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('burnt', flush=True)\nsys.stdin.read()"
    process = run_python(code)
    assert process.stdout is not None
    assert process.stdout.readline() == "burnt\n"
    assert procfs.cpu_seconds(process.pid) >= 0.3
    end(process)


def test_a_sleeping_process_uses_no_cpu() -> None:
    process = run_python("print('up', flush=True)\nimport sys\nsys.stdin.read()")
    assert process.stdout is not None
    process.stdout.readline()
    before = procfs.cpu_seconds(process.pid)
    time.sleep(0.05)
    assert procfs.cpu_seconds(process.pid) - before <= 0.02
    end(process)


def test_resident_memory_grows_by_what_is_touched() -> None:
    code = "import sys\nprint('up', flush=True)\nsys.stdin.readline()\nheld = bytearray(b'x') * (32 << 20)\nprint('held', flush=True)\nsys.stdin.read()"
    process = run_python(code)
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    before = procfs.resident_kib([process.pid])
    process.stdin.write("\n")
    process.stdin.flush()
    process.stdout.readline()
    assert 32 * 1024 <= procfs.resident_kib([process.pid]) - before <= 40 * 1024
    end(process)


def test_a_process_that_is_gone_counts_nothing() -> None:
    process = run_python("pass")
    end(process)
    assert procfs.cpu_seconds(process.pid) == 0
    assert procfs.resident_kib([process.pid]) == 0
    assert os.getpid() in procfs.family(os.getpid())
