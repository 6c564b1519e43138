"""The command ``rlox-gpu``: train, evaluate, info."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from rlox_gpu.config import (
    TUNED,
    TrainingConfig,
    check_names,
    config_class,
    read_settings,
    tuned,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reinforcement learning on the GPU, and on the CPU in Rust.",
)
console = Console(highlight=False, soft_wrap=True)

RunDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the run; default: runs/ALGORITHM-ENV-seedN-TIME."),
]


@app.command()
def train(
    algorithm: Annotated[str, typer.Argument(help="ppo")],
    env: Annotated[str | None, typer.Option(help="Native or Gymnasium id.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, ...")] = None,
    steps: Annotated[int | None, typer.Option(help="Environment steps.")] = None,
    seed: Annotated[int | None, typer.Option(help="Determines the run.")] = None,
    n_envs: Annotated[int | None, typer.Option(help="Environments.")] = None,
    target: Annotated[
        float | None,
        typer.Option(help="Stop once the evaluation's mean return reaches this."),
    ] = None,
    eval_freq: Annotated[int | None, typer.Option(help="Steps between evaluations.")] = None,
    eval_episodes: Annotated[int | None, typer.Option(help="Episodes of one.")] = None,
    checkpoint_freq: Annotated[int | None, typer.Option(help="Steps between them.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML or TOML file; the options here count before it."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="One of the algorithm's settings, name=value; repeatable."),
    ] = None,
    run_dir: RunDir = None,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --run-dir.")] = False,
) -> None:
    """Train an algorithm and leave a run folder behind.

    Settings known to work well for the environment are used where there are any. The exit status
    is 1 if --target was given and not reached.
    """
    options = {
        "env_id": env,
        "device": device,
        "total_timesteps": steps,
        "seed": seed,
        "n_envs": n_envs,
        "target_return": target,
        "eval_freq": eval_freq,
        "eval_episodes": eval_episodes,
        "checkpoint_freq": checkpoint_freq,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if resume:
        plan = _plan_to_resume(run_dir, given, config, setting)
    else:
        plan = _plan(algorithm, given, config, setting or [], run_dir)
    _print_plan(plan)
    _train(plan, resume)


def _plan_to_resume(
    run_dir: Path | None, given: dict[str, Any], config: Path | None, setting: list[str] | None
) -> TrainingConfig:
    from rlox_gpu.runs import CONFIG

    if run_dir is None:
        raise ValueError("--resume: expected --run-dir with the folder of a run")
    if given or config or setting:
        raise ValueError("--resume: the run's own config.yaml counts; leave out the other options")
    if not (run_dir / CONFIG).is_file():
        raise FileNotFoundError(f"--run-dir: no run in {str(run_dir)!r} ({CONFIG} is missing)")
    return TrainingConfig.from_yaml(run_dir / CONFIG)


def _plan(
    algorithm: str,
    given: dict[str, Any],
    config: Path | None,
    setting: Sequence[str],
    run_dir: Path | None,
) -> TrainingConfig:
    from rlox_gpu.runs import default_run_dir

    values = read_settings(config) if config is not None else {}
    values |= {"algorithm": algorithm.lower(), **given}
    if "env_id" not in values:
        raise ValueError("--env: expected an environment id, for example CartPole-v1")
    own = {**values.get("hyperparameters", {}), **_parse_settings(algorithm, setting)}
    pair = (values["algorithm"], values["env_id"])
    values["hyperparameters"] = {**(tuned(*pair) if pair in TUNED else {}), **own}
    values.setdefault("run_dir", None)
    if run_dir is not None:
        values["run_dir"] = str(run_dir)
    plan = TrainingConfig.from_dict(values)
    if plan.run_dir is None:
        values["run_dir"] = str(default_run_dir(plan))
    return TrainingConfig.from_dict(values)


def _parse_settings(algorithm: str, setting: Sequence[str]) -> dict[str, Any]:
    parsed = {}
    for item in setting:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"--set: expected name=value, got {item!r}")
        value = yaml.safe_load(text)
        # YAML 1.1 reads 1e-3 as a string.
        parsed[name] = _number(value) if isinstance(value, str) else value
    check_names(parsed, config_class(algorithm).names(), "--set")
    return parsed


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _print_plan(plan: TrainingConfig) -> None:
    console.print(f"{plan.algorithm} on {plan.env_id}, seed {plan.seed}, device {plan.device}")
    for name, value in plan.algorithm_settings().items():
        console.print(f"  {name} = {value}")
    console.print(f"  total_timesteps = {plan.total_timesteps:,}")
    if plan.target_return is not None:
        console.print(
            f"  until {plan.eval_episodes} evaluation episodes average {plan.target_return:g}"
        )


def _train(plan: TrainingConfig, resume: bool) -> None:
    from rlox_gpu.progress import ProgressCallback
    from rlox_gpu.trainer import train_from_config

    progress = ProgressCallback(console)
    try:
        result = train_from_config(plan, resume=resume, callbacks=[progress], report=console.print)
    except KeyboardInterrupt:
        console.print(
            f"stopped; --resume --run-dir {plan.run_dir} goes on from the last checkpoint"
        )
        raise typer.Exit(130) from None
    finally:
        progress.close()
    console.print(f"run folder: {plan.run_dir}")
    mean = result.get("eval_mean_reward")
    if mean is None:
        return
    console.print(f"evaluation: mean return {mean:.1f} over {plan.eval_episodes} episodes")
    if plan.target_return is not None and mean < plan.target_return:
        console.print(f"target {plan.target_return:g} not reached")
        raise typer.Exit(1)


@app.command()
def evaluate(
    path: Annotated[Path, typer.Argument(help="A run folder or a checkpoint.")],
    episodes: Annotated[int, typer.Option(help="Episodes.")] = 20,
    seed: Annotated[int, typer.Option(help="Determines the initial states.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Run the deterministic policy of a run or a checkpoint."""
    from rlox_gpu.runs import find_checkpoint
    from rlox_gpu.trainer import Trainer

    checkpoint = find_checkpoint(path)
    trainer = Trainer.from_checkpoint(checkpoint, device=device)
    result = trainer.evaluate(episodes, seed)
    console.print(f"{trainer.env}, {checkpoint}")
    console.print(
        f"{episodes} episodes: mean return {result['mean_reward']:.1f}, "
        f"deviation {result['std_reward']:.1f}, "
        f"{result['min_reward']:g} to {result['max_reward']:g}"
    )


@app.command()
def info() -> None:
    """Show versions, which backends work, and why one does not."""
    from rlox_gpu.backends import backends, versions

    table = Table(box=None, show_header=False)
    for name, version in versions().items():
        table.add_row(name, version)
    console.print(table)
    for name, problem in backends().items():
        console.print(f"{name}: {'works' if problem is None else problem}")


def main() -> None:
    """Run the command line; a wrong input ends in one line, not in a traceback."""
    try:
        app()
    except (ValueError, TypeError, FileNotFoundError) as error:
        console.print(f"rlox-gpu: {error}")
        sys.exit(2)
