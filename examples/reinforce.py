"""RMSprop, which reinforcement learning likes, with a policy gradient: walk to the end of a corridor with traps.

Run it with ``python examples/reinforce.py``; it needs ``gpuopt[torch,cpu]``.
"""

import torch
from torch import nn

from gpuopt import RMSprop

LENGTH, EPISODES = 8, 64
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

right_door = torch.randint(3, (LENGTH,), device=device)  # of three doors in each room one leads on
policy = nn.Sequential(nn.Linear(LENGTH, 64), nn.Tanh(), nn.Linear(64, 3)).to(device)
optimizer = RMSprop(policy.parameters(), lr=3e-3, max_grad_norm=1.0)


def play() -> tuple[torch.Tensor, torch.Tensor]:
    """Plays episodes at once: log-probabilities of what was done, and the rooms that each passed."""
    room = torch.zeros(EPISODES, dtype=torch.long, device=device)
    log_probs, alive = [], torch.ones(EPISODES, dtype=torch.bool, device=device)
    for _ in range(LENGTH):
        choice = torch.distributions.Categorical(logits=policy(nn.functional.one_hot(room, LENGTH).float()))
        door = choice.sample()
        log_probs.append(choice.log_prob(door) * alive)
        alive = alive & (door == right_door[room])
        room = (room + alive).clamp(max=LENGTH - 1)
    return torch.stack(log_probs).sum(0), room.float() + alive


for step in range(201):
    log_prob, reward = play()
    loss = -(log_prob * (reward - reward.mean())).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step}: rooms passed {reward.mean().item():.2f} of {LENGTH}")
