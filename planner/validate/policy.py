"""A policy-gradient run as the article does it: groups of samples, group-centred advantages, importance sampling.

Each step takes batch / group prompts, samples `group` answers to each from the policy, and makes one Adam step on
-mean(ratio x advantage) over answers, ratio = exp(log p - log p of the sampler) a token, advantage = reward less the
group's mean. Nothing is clipped, no reference model, no length term.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..information import entropy
from .records import RunConfig
from .require import require
from .tasks import Example
from .train import Outcome, Trainer, indices


@dataclass(frozen=True)
class Samples:
    """Prompts with sampled answers: tokens [n, prompt + answer], log-probabilities of the answer's tokens under the
    sampler [n, answer], which of them count [n, answer], and rewards [n]."""

    tokens: Any
    log_probs: Any
    counted: Any
    rewards: Any
    prompt_length: int


class Policy(Trainer):
    """A run on a task with a reward."""

    def __init__(self, config: RunConfig, device: str, beat: Callable[[int], None] | None = None) -> None:
        super().__init__(config, device, beat)
        if self.task.reward is None:
            raise InputError("task", config.task, "one with a reward: arithmetic or secret")
        if config.batch % config.group:
            raise InputError("batch", config.batch, f"a multiple of the group size {config.group}")
        torch = require()
        self.generator = torch.Generator().manual_seed(7_000_003 * (config.seed + 1))
        longest = max(len(self.base.tokenizer.encode(e.completion)) for e in self.task.evaluation)
        self.answer_length = longest
        self.end = self.base.tokenizer.encode("\n")[-1:]

    def prompts(self, step: int) -> list[str]:
        """The step's prompts, each once; the secret's go round, sums are fresh."""
        asked = self.config.but(batch=self.config.batch // self.config.group)
        return [self.task.example(index).prompt for index in indices(asked, self.task, step)]

    def sample(self, prompts: list[str]) -> Samples:
        """One answer to each prompt, token by token, from the policy as it is. Prompts of one length go together."""
        torch = require()
        encoded = [list(self.base.tokenizer.encode(prompt)) for prompt in prompts]
        width = max(map(len, encoded))
        if len(set(map(len, encoded))) > 1:
            raise InputError("task", self.config.task, "prompts of one length in a batch")
        tokens = torch.tensor(encoded, device=self.device)
        done = torch.zeros(len(prompts), dtype=torch.bool)
        log_probs, counted = [], []
        with torch.no_grad():
            for _ in range(self.answer_length):
                logits = self.model(input_ids=tokens, use_cache=False).logits[:, -1].float().cpu()
                chosen = torch.multinomial(logits.softmax(-1), 1, generator=self.generator)
                log_probs.append(logits.log_softmax(-1).gather(1, chosen)[:, 0])
                counted.append(~done)
                done = done | (chosen[:, 0] == self.end[0])
                tokens = torch.cat([tokens, chosen.to(self.device)], 1)
        rewards = self.judge(prompts, tokens[:, width:], torch.stack(counted, 1))
        return Samples(tokens, torch.stack(log_probs, 1), torch.stack(counted, 1), rewards, width)

    def judge(self, prompts: list[str], answers: Any, counted: Any) -> Any:
        """Rewards of answers, each cut at its end."""
        torch = require()
        assert self.task.reward is not None
        texts = [
            self.base.tokenizer.decode([t for t, keep in zip(row, kept, strict=True) if keep])
            for row, kept in zip(answers.tolist(), counted.tolist(), strict=True)
        ]
        return torch.tensor([self.task.reward(p, text) for p, text in zip(prompts, texts, strict=True)])

    def loss(self, samples: Samples) -> Any:
        """-mean over answers of the sum over tokens of ratio x advantage."""
        torch = require()
        group = self.config.group
        centred = samples.rewards.view(-1, group)
        advantage = (centred - centred.mean(1, keepdim=True)).view(-1, 1).to(self.device)
        logits = self.model(input_ids=samples.tokens, use_cache=False).logits.float()
        start = samples.prompt_length
        answers = samples.tokens[:, start:]
        now = logits[:, start - 1 : -1].log_softmax(-1).gather(2, answers[:, :, None])[:, :, 0]
        ratio = torch.exp(now - samples.log_probs.to(self.device))
        return -(ratio * advantage * samples.counted.to(self.device)).sum(1).mean()

    def step(self, prompts: list[str]) -> Samples:
        """Sample answers and leave the gradients of their loss in the parameters; the first step goes through torch's
        FLOP counter, sampling (without a cache of keys and values) apart from the update."""
        from torch.utils.flop_counter import FlopCounterMode

        with self.autocast():
            if self.outcome.flops is not None:
                samples = self.sample(prompts)
                self.loss(samples).backward()
                return samples
            with FlopCounterMode(display=False) as sampling:
                samples = self.sample(prompts)
            with FlopCounterMode(display=False) as update:
                self.loss(samples).backward()
        self.outcome.flops = int(update.get_total_flops())
        self.outcome.measured["sampling_flops"] = int(sampling.get_total_flops())
        return samples

    def success(self) -> float:
        """Mean probability of the right answer over the evaluation set: the exact success rate of sampling."""
        torch = require()
        with torch.no_grad():
            return statistics.fmean(float(torch.exp(self._log_prob(e))) for e in self.task.evaluation)

    def success_if_greedy(self) -> float:
        """Share of questions whose right answer's first token is the most probable one."""
        torch = require()
        right = 0
        with torch.no_grad():
            for item in self.task.evaluation:
                tokens = torch.tensor([list(self.base.tokenizer.encode(item.prompt))], device=self.device)
                best = self.model(input_ids=tokens, use_cache=False).logits[0, -1].argmax()
                right += int(best) == self.base.tokenizer.encode(item.completion)[0]
        return right / len(self.task.evaluation)

    def _log_prob(self, item: Example) -> Any:
        torch = require()
        prompt, answer = (list(self.base.tokenizer.encode(text)) for text in (item.prompt, item.completion))
        tokens = torch.tensor([prompt + answer], device=self.device)
        logits = self.model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        return logits.log_softmax(-1).gather(1, tokens[0, len(prompt) :, None]).sum()

    def run(self) -> Outcome:
        """The whole run: `curve` is 1 - mean reward of each step's samples, evaluations 1 - success rate."""
        out, config = self.outcome, self.config
        stops, times = {*config.evaluate_at, config.steps}, []
        out.measured["success_before"] = self.success()
        rates: list[float] = []
        for step in range(config.steps):
            started = time.perf_counter()
            prompts = [prompt for prompt in self.prompts(step) for _ in range(config.group)]
            samples = self.step(prompts)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            rates.append(float(samples.rewards.mean()))
            out.curve.append(1 - rates[-1])
            times.append(time.perf_counter() - started)
            if step + 1 in stops:
                out.evaluations.append((step + 1, 1 - self.success()))
            if self.beat is not None:
                self.beat(step + 1)
        self.finish(times)
        out.measured.update(self.information(rates))
        return out

    def information(self, rates: list[float]) -> dict[str, float]:
        """Episodes, the most bits that their rewards can carry (sum of H(success rate)), and for a task of known bits
        what the policy knows of them in the end: K (1 - H(share of right answers)), what a channel of K bits that
        errs so often lets through."""
        found = {
            "episodes": float(len(rates) * self.config.batch),
            "reward_bits": sum(self.config.batch * entropy(min(1.0, max(0.0, rate))) for rate in rates),
        }
        if self.task.bits is not None:
            right = self.success_if_greedy()
            found["right"] = right
            found["known_bits"] = self.task.bits * (1 - entropy(right)) if right > 0.5 else 0.0
        return found


def train_policy(config: RunConfig, device: str, beat: Callable[[int], None] | None = None) -> Outcome:
    """Run a reinforcement-learning configuration."""
    return Policy(config, device, beat).run()


__all__ = ["Policy", "train_policy"]
