"""Stream answers of a language model from any endpoint that implements OpenAI's chat completions.

In bots.yaml, for a model on this machine (for others, set `url`, `model` and `api_key: ${OPENAI_API_KEY}`):

    plugins:
      - module: plugins.llm
        settings:
          url: http://localhost:11434/v1
          model: llama3.2
          instructions: You are the help desk of a bakery. Be brief.
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta

import aiohttp
from pydantic import BaseModel, Field, SecretStr

from chatbot import PASS, Context, Event, Pass, Plugin, Retry, State


class Settings(BaseModel):
    """The model and its endpoint.

    Args:
        url: the URL of the endpoint, without `/chat/completions`.
        model: the name of the model at the endpoint.
        api_key: sent as a bearer token if set.
        instructions: the system prompt.
        memory: the number of earlier messages that are sent to the model.
        only_mentioned: answer only messages that mention the bot; for threads with many people.
        timeout: the time limit of an answer, in seconds.
    """

    url: str = "https://api.openai.com/v1"
    model: str
    api_key: SecretStr | None = None
    instructions: str = "You are a helpful assistant. Be brief."
    memory: int = Field(default=20, ge=0)
    only_mentioned: bool = False
    timeout: float = Field(default=120, gt=0)


@dataclass
class Talk:
    """The latest messages of a thread: role and text."""

    turns: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Model:
    """A language model behind an endpoint."""

    session: aiohttp.ClientSession
    settings: Settings

    async def answer(self, turns: list[tuple[str, str]]) -> AsyncGenerator[str, None]:
        """Yield the pieces of the model's answer as they arrive."""
        messages = [("system", self.settings.instructions), *turns]
        body = {
            "model": self.settings.model,
            "stream": True,
            "messages": [{"role": role, "content": content} for role, content in messages],
        }
        async with self.session.post(f"{self.settings.url.rstrip('/')}/chat/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                data = line.decode().removeprefix("data:").strip()
                if data == "[DONE]":
                    return
                if line.startswith(b"data:"):
                    for choice in json.loads(data)["choices"]:
                        yield choice["delta"].get("content") or ""


def plugin(settings: Settings) -> Plugin:
    """Create the plugin."""
    llm = Plugin("llm")

    @llm.provide
    async def model() -> AsyncIterator[Model]:
        key = settings.api_key
        headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        async with aiohttp.ClientSession(headers=headers, trust_env=True) as session:
            yield Model(session, settings)

    @llm.message(retry=Retry(3), timeout=timedelta(seconds=settings.timeout))
    async def answer(ctx: Context, model: Model, talk: State[Talk]) -> Pass | None:
        """Answer with the model, and remember the conversation."""
        if settings.only_mentioned and not ctx.is_mentioned:
            return PASS
        turns = [*talk.value.turns, ("user", ctx.text)]
        said: list[str] = []

        async def told() -> AsyncIterator[str]:
            async with aclosing(model.answer(turns)) as pieces:
                async for piece in pieces:
                    said.append(piece)
                    yield piece

        async with ctx.typing():
            await ctx.stream(told())
        turns.append(("assistant", "".join(said)))
        talk.value = Talk(turns[-settings.memory :] if settings.memory else [])
        return None

    @llm.command("forget")
    async def forget(ctx: Context, talk: State[Talk]) -> str:
        """Forget what was said here."""
        talk.value = Talk()
        return "Forgotten."

    @llm.error(aiohttp.ClientError, TimeoutError)
    async def sorry(ctx: Context[Event], error: Exception) -> str:
        """Apologize if the model does not answer."""
        return "I cannot think right now. Please ask me again later."

    return llm
