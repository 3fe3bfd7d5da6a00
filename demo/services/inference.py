"""An inference server: a classifier of handwritten digits, trained at start from scikit-learn's bundled data set.

REST and an OpenAI-style chat endpoint (with server-sent events) on one port, gRPC with server streaming on another.
Usage: inference.py ADDRESS REST_PORT GRPC_PORT
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import grpc
import numpy as np
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL = "digits-1"
PIXELS = 64
TOKEN_SECONDS = 0.02

sys.path.insert(0, str(Path(__file__).parent))
messages, services = grpc.protos_and_services("inference.proto")

Pixels = Annotated[list[float], Field(min_length=PIXELS, max_length=PIXELS)]


class Classifier:
    def __init__(self) -> None:
        images, digits = load_digits(return_X_y=True)
        train, self.samples, train_digits, self.digits = train_test_split(images, digits, test_size=0.25, random_state=7)
        self._pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(train, train_digits)
        self.accuracy = float(self._pipeline.score(self.samples, self.digits))

    def predict(self, instances: Any) -> list[tuple[int, float]]:
        """(digit, confidence 0 to 1) for each instance of 64 grey levels."""
        shares = self._pipeline.predict_proba(np.asarray(instances, dtype=float))
        return [(int(row.argmax()), float(row.max())) for row in shares]

    def sample(self, place: int) -> tuple[int, float]:
        return self.predict([self.samples[place % len(self.samples)]])[0]


class Instances(BaseModel):
    instances: Annotated[list[Pixels], Field(min_length=1, max_length=1024)]


class Said(BaseModel):
    role: str
    content: str


class Chat(BaseModel):
    model: str = MODEL
    messages: list[Said]
    stream: bool = False
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 32


def rest(classifier: Classifier) -> FastAPI:
    app = FastAPI(title="inference")

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "accuracy": classifier.accuracy}]}

    @app.post("/v1/predict")
    def predict(body: Instances) -> dict[str, Any]:
        return {"predictions": [{"digit": digit, "confidence": sure} for digit, sure in classifier.predict(body.instances)]}

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: Chat) -> StreamingResponse | dict[str, Any]:
        if body.model != MODEL:
            raise HTTPException(404, f"no model `{body.model}` here; there is `{MODEL}`")
        about = {"id": "chat-1", "created": int(time.time()), "model": MODEL}
        if body.stream:
            return StreamingResponse(_spoken(classifier, body.max_tokens, about), media_type="text/event-stream")
        text = "".join([word async for word in _words(classifier, body.max_tokens, 0)])
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        return {**about, "object": "chat.completion", "choices": [choice]}

    return app


async def _words(classifier: Classifier, count: int, pause: float) -> AsyncIterator[str]:
    """What the model has to say: one reading of a sample after the other."""
    for place in range(count):
        digit, sure = classifier.sample(place)
        yield f"{digit} ({sure:.0%}) "
        await asyncio.sleep(pause)


async def _spoken(classifier: Classifier, count: int, about: dict[str, Any]) -> AsyncIterator[str]:
    async for word in _words(classifier, count, TOKEN_SECONDS):
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        yield f"data: {json.dumps({**about, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


class Inference(services.InferenceServicer):  # type: ignore[misc,name-defined]  # made from the .proto at start
    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier

    async def Predict(self, request: Any, context: grpc.aio.ServicerContext) -> Any:  # noqa: N802  gRPC's name
        if len(request.pixels) != PIXELS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"`{len(request.pixels)}` pixels; a digit has {PIXELS}")
        digit, sure = self._classifier.predict([request.pixels])[0]
        return messages.Prediction(digit=digit, confidence=sure)

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:  # noqa: ARG002, N802
        for place in range(request.count):
            digit, sure = self._classifier.sample(place)
            yield messages.Prediction(digit=digit, confidence=sure, sample=place)
            await asyncio.sleep(request.interval_ms / 1000)


async def serve(address: str, rest_port: int, grpc_port: int) -> None:
    classifier = Classifier()
    print(f"trained `{MODEL}`: {classifier.accuracy:.1%} of {len(classifier.digits)} test digits right", flush=True)
    server = grpc.aio.server()
    services.add_InferenceServicer_to_server(Inference(classifier), server)
    server.add_insecure_port(f"{address}:{grpc_port}")
    await server.start()
    await uvicorn.Server(uvicorn.Config(rest(classifier), host=address, port=rest_port, log_level="warning")).serve()
    await server.stop(grace=0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
