"""Errors of the API, with the status, type, param and code that OpenAI's API uses."""

import difflib
from collections.abc import Iterable
from typing import Any

INVALID = "invalid_request_error"


class ApiError(Exception):
    """An error response: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.type = status, message, type
        self.param, self.code, self.headers = param, code, headers or {}

    def body(self) -> dict[str, Any]:
        """Return the body of the response."""
        fields = {"message": self.message, "type": self.type}
        return {"error": {**fields, "param": self.param, "code": self.code}}


def invalid_value(param: str, message: str, code: str = "invalid_value") -> ApiError:
    """Return the error for a parameter with a wrong value."""
    return ApiError(400, message, param=param, code=code)


def unknown_parameter(param: str, known: Iterable[str]) -> ApiError:
    """Return the error for a parameter that the API does not have."""
    near = difflib.get_close_matches(param.rpartition(".")[2], list(known), n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ApiError(
        400, f"Unknown parameter: '{param}'.{hint}", param=param, code="unknown_parameter"
    )


def missing_parameter(param: str) -> ApiError:
    """Return the error for a required parameter that was not sent."""
    message = f"Missing required parameter: '{param}'."
    return ApiError(400, message, param=param, code="missing_required_parameter")


def no_such_file(file_id: str) -> ApiError:
    return ApiError(404, f"No such File object: {file_id}", param="id")


def no_such_job(job_id: str) -> ApiError:
    return ApiError(
        404,
        f"Could not find fine tune: {job_id}",
        param="fine_tuning_job_id",
        code="fine_tune_not_found",
    )


def no_such_model(model: str) -> ApiError:
    message = f"The model '{model}' does not exist or you do not have access to it."
    return ApiError(404, message, param="model", code="model_not_found")
