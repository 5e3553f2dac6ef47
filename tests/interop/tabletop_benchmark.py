"""The tabletop as a benchmark of vla-eval's, without Docker: `benchmark: tabletop_benchmark:TabletopBenchmark`.

It shows how any `rt2_jax.evaluate.env.Environment` becomes one; docs/vla_eval.md explains it.
"""

import world
from vla_eval.benchmarks.base import StepBenchmark, StepResult


class TabletopBenchmark(StepBenchmark):
    """Every skill of a split is a task, and an episode's number its seed."""

    def __init__(self, split="seen", skills=None, image_size=world.SIZE, max_steps=40):
        super().__init__()
        self.split, self.max_steps = split, max_steps
        self.env = world.TabletopEnvironment(image_size, max_steps)
        known = next(each.skills for each in self.env.spec.splits if each.name == split)
        self.skills = [skill for skill in known if skills is None or skill in skills]

    def get_tasks(self):
        return [{"name": skill, "suite": self.split, "task_id": number} for number, skill in enumerate(self.skills)]

    def reset(self, task):
        return self.env.reset(self.split, task["name"], task.get("episode_idx", 0))

    def step(self, action):
        after = self.env.step(world.np.asarray(action["actions"], world.np.float32))
        return StepResult(
            obs=after.observation, reward=float(after.success), done=after.done, info={"ok": after.success}
        )

    def make_obs(self, raw_obs, task):
        # The renderer draws every frame into one array.
        return {
            "images": {name: frame.copy() for name, frame in raw_obs.images.items()},
            "task_description": raw_obs.instruction,
        }

    def get_step_result(self, step_result):
        return {"success": bool(step_result.info.get("ok", False))}

    def get_metadata(self):
        return {"max_steps": self.max_steps, "suite": self.split}

    def cleanup(self):
        self.env.close()
