"""Train PPO on CartPole, evaluate it, save it, load it and use it."""

import tempfile
from pathlib import Path

import gymnasium as gym

from rlox_gpu import PPO
from rlox_gpu.config import tuned

ppo = PPO("CartPole-v1", seed=0, **tuned("ppo", "CartPole-v1"))
result = ppo.train(40_000)
print(f"last episodes while training: mean return {result['mean_reward']:.1f}")
print(f"evaluation: mean return {ppo.evaluate(20)['mean_reward']:.1f}")

checkpoint = Path(tempfile.mkdtemp()) / "cartpole.safetensors"
ppo.save(checkpoint)
loaded = PPO.from_checkpoint(checkpoint)

env = gym.make("CartPole-v1")
obs, _ = env.reset(seed=0)
steps, ended = 0, False
while not ended:
    obs, _, terminated, truncated, _ = env.step(int(loaded.predict(obs)))
    steps, ended = steps + 1, terminated or truncated
env.close()
print(f"one episode in Gymnasium's own CartPole: {steps} steps")
