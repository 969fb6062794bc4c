from chatbot.model import UserId
from chatbot.runtime.assemble import OtherBots

ONE, TWO, THREE = (UserId(f"8:acs:{name}") for name in ("one", "two", "three"))


def test_siblings_are_all_but_oneself_at_any_time() -> None:
    users = {ONE, TWO}
    siblings = OtherBots(ONE, users)

    assert set(siblings) == {TWO}
    users |= {THREE}
    users.discard(TWO)

    assert THREE in siblings
    assert TWO not in siblings
    assert ONE not in siblings
    assert len(siblings) == 1
    assert siblings | {TWO} == frozenset({TWO, THREE})
