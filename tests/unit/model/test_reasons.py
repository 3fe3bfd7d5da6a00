from cloister.model.reasons import REASONS, Code


def test_every_code_has_one_sentence_in_house_style() -> None:
    assert set(REASONS) == {code.value for code in Code}
    for reason in REASONS.values():
        assert reason.message
        assert reason.message[0].islower() or reason.message.startswith("TLS")
        assert not reason.message.endswith(".")
        assert not reason.remedy.endswith(".")
