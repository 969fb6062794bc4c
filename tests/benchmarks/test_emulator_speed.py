import json
import subprocess
import sys


def test_the_emulator_answers_2000_idle_list_messages_per_second_on_one_core() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.emulator", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)

    rates = json.loads(result.stdout)

    assert rates["http"] >= 2000
    assert rates["https"] >= 2000
