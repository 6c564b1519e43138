"""Collector, loss and policy put together by hand: PPO on Acrobot, a Gymnasium environment."""

import torch

from rlox_gpu import DiscretePolicy, PPOLoss, RolloutCollector

EPOCHS, ITERATIONS = 4, 10

policy = DiscretePolicy(obs_dim=6, n_actions=3, seed=0)
optimizer = torch.optim.Adam(policy.parameters(), lr=1e-3, eps=1e-5)
collector = RolloutCollector("Acrobot-v1", n_envs=8, seed=0)
loss_fn = PPOLoss(ent_coef=0.0)

for iteration in range(ITERATIONS):
    batch = collector.collect(policy, n_steps=64)
    for epoch in range(EPOCHS):
        order = {"seed": 0, "step": iteration * EPOCHS + epoch}
        for part in batch.sample_minibatches(256, **order):
            advantages = (part.advantages - part.advantages.mean()) / part.advantages.std()
            loss, metrics = loss_fn(
                policy,
                part.obs,
                part.actions,
                part.log_probs,
                advantages,
                part.returns,
                part.values,
            )
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.parameters(), loss_fn.max_grad_norm)
            optimizer.step()
    recent = collector.episode_rewards[-20:]
    mean = f"{sum(recent) / len(recent):.1f}" if recent else "none yet"
    print(f"iteration {iteration}: KL {metrics['approx_kl']:.4f}, recent returns {mean}")
