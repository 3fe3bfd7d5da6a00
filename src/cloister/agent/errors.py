"""The one exception of agents: something a person must look at, said in one sentence with a stable code."""

from cloister.model.reasons import Code


class AgentError(Exception):
    def __init__(self, code: Code | str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = str(code)
        self.message = message
        self.remedy = remedy
