import json
import subprocess
import sys


def test_the_benchmark_of_the_emulator_says_how_much_it_answers_per_second_of_a_core() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.emulator", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    rates = json.loads(result.stdout)

    assert rates["http"] > 0
    assert rates["https"] > 0
