from importlib.metadata import PackageNotFoundError

from chatbot.runtime.doctor.finding import Finding, FindingState
from chatbot.runtime.doctor.packages import check_packages

ASKED = (
    "azure-core<2,>=1.41",
    "tzdata; platform_system == 'Nowhere'",
    'azure-identity<2,>=1.25; extra == "entra"',
    'pytest<10,>=9; extra == "test"',
)


def installed(name: str) -> str:
    known = {"azure-core": "1.42.0", "chatbot": "0.1.0"}
    if name in known:
        return known[name]
    raise PackageNotFoundError(name)


def ills(**options: object) -> list[Finding]:
    found = check_packages(asked=ASKED, **options)  # type: ignore[arg-type]
    return [one for one in found if one.state is FindingState.FAILED]


def test_what_is_asked_for_is_here_in_this_very_environment() -> None:
    assert [one.state for one in check_packages()] == [FindingState.OK, FindingState.OK]


def test_a_package_that_is_too_old_is_named_with_what_installs_a_right_one() -> None:
    (ill,) = ills(installed=lambda name: {"azure-core": "1.30.0"}.get(name, "1"))

    assert ill.text == "azure-core 1.30.0 is installed, but azure-core<2,>=1.41 is required"
    assert ill.remedy == "pip install 'azure-core<2,>=1.41'"


def test_an_extra_that_the_service_needs_is_asked_for_and_no_other() -> None:
    (ill,) = ills(installed=installed, extras=["entra"])

    assert ill.text == "azure-identity<2,>=1.25 is not installed"
