#!/usr/bin/env python3
"""Three steps of PyTorch's SGD and AdamW on three numbers: the constants at the end of `steps.rs`.

Usage: V/bin/python optimisers.py
"""
import torch

START, RATES = [1.0, -2.0, 0.5], [0.1, 0.05, 0.2]
GRADIENTS = [[0.5, 1.0, -2.0], [-1.0, 0.25, 0.5], [0.125, -0.5, 1.0]]


def steps(make):
    values = [torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in START]
    optimiser = make([{'params': [values[0], values[2]], 'weight_decay': 0.1}, {'params': [values[1]], 'weight_decay': 0.0}])
    for rate, gradient in zip(RATES, GRADIENTS):
        for group in optimiser.param_groups:
            group['lr'] = rate
        for value, g in zip(values, gradient):
            value.grad = torch.tensor([g], dtype=torch.float64)
        optimiser.step()
    return [round(value.item(), 10) for value in values]


print(f'const SGD: [(bool, [f64; 3]); 2] = [(false, {steps(lambda p: torch.optim.SGD(p, lr=1, momentum=0.9))}),',
      f'(true, {steps(lambda p: torch.optim.SGD(p, lr=1, momentum=0.9, nesterov=True))})];')
print(f'const ADAM: [f64; 3] = {steps(lambda p: torch.optim.AdamW(p, lr=1, betas=(0.8, 0.95), eps=1e-6))};')
