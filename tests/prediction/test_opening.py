"""Opening a run's folder, and predicting in Python."""

import numpy as np

from prediction import open_run


def test_predicts(runs):
    for task in runs:
        run = open_run(runs[task])
        images = [np.full((28, 28, 1), value, np.uint8) for value in range(3)]
        found = run.predict(images)
        print(run.weights, str(found[0])[:300])
