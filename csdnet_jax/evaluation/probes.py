"""What frozen embeddings are worth: simple classifiers, in NumPy arrays."""

import warnings

import numpy as np
from absl import logging

from csdnet_jax.evaluation.neighbours import nearest

# The temperature of the vote in Wu et al. and of every kNN evaluation since.
_TEMPERATURE = 0.07

# Of the linear probe: at most so many iterations, and so many products of a
# feature by a weight over all of them, about ten minutes on two cores.
_ITERATIONS = 5000
_PRODUCTS = 6 * 10**12
# Products of an iteration below which one thread is fast enough.
_FOR_ONE_THREAD = 10**8


def knn(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  test_y: np.ndarray,
  *,
  k: int = 5,
) -> float:
  """Accuracy of the weighted vote of the k nearest training rows.

  The score of class c is the sum over the k neighbours of that class of
  exp(cos / 0.07) (Wu et al., Unsupervised Feature Learning via Non-Parametric
  Instance Discrimination, CVPR 2018, section 3.4; their k = 200 is for a
  thousand images a class). Ultra-fine-grained sets have few images a class,
  and neighbours beyond those can only vote for others: k is therefore capped
  at the mean number of training rows a class, rounded, and at least 1. Equal
  similarities go to the earlier row, equal scores to the smaller label.

  Args:
    train_x: float [n, C].
    train_y: integer [n].
    test_x: float [m, C].
    test_y: integer [m]; a class that is absent from `train_y` counts as wrong.
    k: neighbours, before the cap.

  Returns:
    Percent right.
  """
  classes, train_c = np.unique(train_y, return_inverse=True)
  k = min(k, max(1, round(len(train_y) / len(classes))))
  near, cosine = nearest(test_x, train_x, k)
  votes = np.zeros((len(test_x), len(classes)))
  rows = np.arange(len(test_x))[:, None]
  np.add.at(votes, (rows, train_c[near]), np.exp(cosine / _TEMPERATURE))
  return _percent(classes[votes.argmax(axis=1)], test_y)


def prototypes(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  test_y: np.ndarray,
) -> float:
  """Accuracy of the nearest class mean, by cosine.

  The prototype of class c is p_c = sum of x / |x| over its training rows, and
  the prediction argmax_c cos(x, p_c): the nearest-mean classifier of Snell et
  al. (Prototypical Networks, NeurIPS 2017) with the cosine in place of the
  Euclidean distance, our choice, since kNN votes by it as well. Equal cosines
  go to the smaller label.

  Args:
    train_x: float [n, C].
    train_y: integer [n].
    test_x: float [m, C].
    test_y: integer [m]; a class that is absent from `train_y` counts as wrong.

  Returns:
    Percent right.
  """
  from sklearn.preprocessing import normalize

  classes, train_c = np.unique(train_y, return_inverse=True)
  sums = np.zeros((len(classes), train_x.shape[1]))
  np.add.at(sums, train_c, normalize(np.asarray(train_x, np.float64)))
  cosine = normalize(np.asarray(test_x, np.float64)) @ normalize(sums).T
  return _percent(classes[cosine.argmax(axis=1)], test_y)


def linear_probe(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  test_y: np.ndarray,
) -> float:
  """Accuracy of L2-regularised logistic regression on the raw embeddings.

  Minimises ||W||^2 / 2 + C sum_i cross entropy(W x_i + b, y_i), C = 10, by
  L-BFGS from zero, so the result does not depend on a seed, in at most 5000
  iterations; in fewer where rows x features x classes exceed 1.2e9, so that
  they take about ten minutes on two cores. Logs a warning if they do not
  suffice.

  Args:
    train_x: float [n, C].
    train_y: integer [n].
    test_x: float [m, C].
    test_y: integer [m]; a class that is absent from `train_y` counts as wrong.

  Returns:
    Percent right.
  """
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression
  from threadpoolctl import threadpool_limits

  classes = np.unique(train_y)
  if len(classes) == 1:
    return _percent(np.repeat(classes, len(test_y)), test_y)
  products = train_x.size * len(classes)
  probe = LogisticRegression(
    C=10, max_iter=min(_ITERATIONS, max(1, _PRODUCTS // products))
  )
  # Threads that wait for each other: where other processes have the cores as
  # well, a small fit takes 25 times as long with all of them as with one.
  threads = 1 if products < _FOR_ONE_THREAD else None
  with threadpool_limits(threads), warnings.catch_warnings():
    # Said below, on the log.
    warnings.simplefilter('ignore', ConvergenceWarning)
    probe.fit(np.asarray(train_x, np.float64), train_y)
  if max(probe.n_iter_) >= probe.max_iter:
    logging.warning(
      'The linear probe did not converge in %d iterations; its accuracy is a '
      'lower estimate.',
      probe.max_iter,
    )
  return _percent(probe.predict(np.asarray(test_x, np.float64)), test_y)


def _percent(predicted, labels):
  return 100.0 * float(np.mean(predicted == labels))
