"""What frozen embeddings are worth: simple classifiers, in NumPy arrays."""

import warnings
from typing import NamedTuple

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

# Between these the scale of the cosines is looked for: at the one they decide
# nothing, at the other a difference of a hundredth decides all.
_SCALES = (1.0, 1000.0)


class Head(NamedTuple):
  """A linear classifier of embeddings, see `logits`.

  Attributes:
    kernel: float32 [C, classes].
    bias: float32 [classes].
    normalised: whether an embedding is divided by its L2 norm first.
  """

  kernel: np.ndarray
  bias: np.ndarray
  normalised: bool


def logits(head: Head, x: np.ndarray) -> np.ndarray:
  """Returns x W + b, or x / |x| W + b where the head is normalised.

  >>> head = Head(np.array([[2.0], [0.0]]), np.zeros(1), normalised=True)
  >>> logits(head, np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
  [[1.2], [0.0]]

  Args:
    head: of C channels.
    x: float [n, C]; of a normalised head a row of zeros remains one.

  Returns:
    float64 [n, classes].
  """
  from sklearn.preprocessing import normalize

  x = np.asarray(x, np.float64)
  x = normalize(x) if head.normalised else x
  return x @ np.asarray(head.kernel, np.float64) + head.bias


def knn_votes(
  train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, *, k: int = 5
) -> np.ndarray:
  """The weighted vote of the k nearest training rows.

  The score of class c is the sum over the k neighbours of that class of
  exp(cos / 0.07) (Wu et al., Unsupervised Feature Learning via Non-Parametric
  Instance Discrimination, CVPR 2018, section 3.4; their k = 200 is for a
  thousand images a class). Ultra-fine-grained sets have few images a class,
  and neighbours beyond those can only vote for others: k is therefore capped
  at the mean number of training rows a class, rounded, and at least 1. Equal
  similarities go to the earlier row.

  Args:
    train_x: float [n, C].
    train_y: integer [n], labels 0 to classes - 1, each present.
    test_x: float [m, C].
    k: neighbours, before the cap.

  Returns:
    float64 [m, classes].
  """
  classes = int(train_y.max()) + 1
  k = min(k, max(1, round(len(train_y) / classes)))
  near, cosine = nearest(test_x, train_x, k)
  votes = np.zeros((len(test_x), classes))
  rows = np.arange(len(test_x))[:, None]
  np.add.at(votes, (rows, train_y[near]), np.exp(cosine / _TEMPERATURE))
  return votes


def knn(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  test_y: np.ndarray,
  *,
  k: int = 5,
) -> float:
  """Accuracy of `knn_votes`; equal scores go to the smaller label.

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
  votes = knn_votes(train_x, train_c, test_x, k=k)
  return _percent(classes[votes.argmax(axis=1)], test_y)


def prototypes(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  test_y: np.ndarray,
) -> float:
  """Accuracy of the nearest class mean, by cosine: of `fit_prototypes`.

  Equal cosines go to the smaller label.

  Args:
    train_x: float [n, C].
    train_y: integer [n].
    test_x: float [m, C].
    test_y: integer [m]; a class that is absent from `train_y` counts as wrong.

  Returns:
    Percent right.
  """
  return _accuracy(fit_prototypes, train_x, train_y, test_x, test_y)


def linear_probe(
  train_x: np.ndarray,
  train_y: np.ndarray,
  test_x: np.ndarray,
  test_y: np.ndarray,
) -> float:
  """Accuracy of logistic regression on the raw embeddings: of `fit_probe`.

  Args:
    train_x: float [n, C].
    train_y: integer [n].
    test_x: float [m, C].
    test_y: integer [m]; a class that is absent from `train_y` counts as wrong.

  Returns:
    Percent right.
  """
  return _accuracy(fit_probe, train_x, train_y, test_x, test_y)


def fit_prototypes(x: np.ndarray, y: np.ndarray) -> Head:
  """Fits the class means: the logit of class c is s cos(x, p_c).

  The prototype p_c is the sum of x / |x| over the rows of class c: the
  nearest-mean classifier of Snell et al. (Prototypical Networks, NeurIPS 2017)
  with the cosine in place of the Euclidean distance, our choice, since kNN
  votes by it as well. The scale s changes no prediction, only how sure it is.
  It minimises the cross-entropy of the rows themselves, each compared with the
  prototype of its own class without it; rows that are alone in their class do
  not count. That is convex in s. Where no row counts or no minimum lies in
  (1, 1000), as where every row is nearest to its own class by far, or to
  others on the whole, s is 1 / 0.07, as in the vote of `knn`. Our choice.

  Args:
    x: float [n, C].
    y: integer [n], labels 0 to classes - 1, each present.

  Returns:
    The head, with columns s p_c / |p_c|, no bias, normalised.
  """
  from sklearn.preprocessing import normalize

  x, y = normalize(np.asarray(x, np.float64)), np.asarray(y)
  each = np.bincount(y)
  sums = np.zeros((len(each), x.shape[1]))
  np.add.at(sums, y, x)
  directions = normalize(sums)
  several = each[y] > 1
  x, y = x[several], y[several]
  cosines = x @ directions.T
  others = normalize(sums[y] - x) if len(y) else x
  own = np.einsum('nc,nc->n', x, others)
  cosines[np.arange(len(y)), y] = own
  kernel = _scale(cosines, own) * directions.T
  return Head(
    kernel.astype(np.float32), np.zeros(len(each), np.float32), normalised=True
  )


def _scale(cosines: np.ndarray, own: np.ndarray) -> float:
  """Returns s that minimises the mean of log sum exp(s cosines) - s own.

  Args:
    cosines: float64 [n, classes].
    own: float64 [n], those of the own class.
  """
  from scipy.optimize import brentq
  from scipy.special import softmax

  def slope(s):
    expected = np.einsum('nc,nc->n', softmax(s * cosines, axis=1), cosines)
    return np.mean(expected - own)

  low, high = _SCALES
  if not len(own) or not slope(low) < 0 < slope(high):
    return 1 / _TEMPERATURE
  return brentq(slope, low, high)


def fit_probe(x: np.ndarray, y: np.ndarray) -> Head:
  """Fits L2-regularised logistic regression to the raw embeddings.

  Minimises ||W||^2 / 2 + C sum_i cross entropy(W x_i + b, y_i), C = 10, by
  L-BFGS from zero, so the result does not depend on a seed, in at most 5000
  iterations; in fewer where rows x features x classes exceed 1.2e9, so that
  they take about ten minutes on two cores. Logs a warning if they do not
  suffice. Of two classes W is the one vector w of the binary regression, as
  columns -w / 2 and w / 2, which give its probabilities.

  Args:
    x: float [n, C].
    y: integer [n], labels 0 to classes - 1, each present.

  Returns:
    The head; of a single class its logit is 0.
  """
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression
  from threadpoolctl import threadpool_limits

  classes = len(np.unique(y))
  if classes == 1:
    kernel = np.zeros((x.shape[1], 1), np.float32)
    return Head(kernel, np.zeros(1, np.float32), normalised=False)
  products = x.size * classes
  probe = LogisticRegression(
    C=10, max_iter=min(_ITERATIONS, max(1, _PRODUCTS // products))
  )
  # Threads that wait for each other: where other processes have the cores as
  # well, a small fit takes 25 times as long with all of them as with one.
  threads = 1 if products < _FOR_ONE_THREAD else None
  with threadpool_limits(threads), warnings.catch_warnings():
    # Said below, on the log.
    warnings.simplefilter('ignore', ConvergenceWarning)
    # One picture of many a class is what small folds have.
    warnings.filterwarnings('ignore', 'The number of unique classes')
    probe.fit(np.asarray(x, np.float64), y)
  if max(probe.n_iter_) >= probe.max_iter:
    logging.warning(
      'The linear probe did not converge in %d iterations; its accuracy is a '
      'lower estimate.',
      probe.max_iter,
    )
  weights, bias = probe.coef_, probe.intercept_
  if classes == 2:
    weights = np.concatenate([-weights, weights]) / 2
    bias = np.concatenate([-bias, bias]) / 2
  return Head(
    np.asarray(weights.T, np.float32), np.asarray(bias, np.float32),
    normalised=False,
  )  # fmt: skip


def _accuracy(fit, train_x, train_y, test_x, test_y) -> float:
  """Percent that a head fitted to the training rows gets right."""
  classes, train_c = np.unique(train_y, return_inverse=True)
  scores = logits(fit(train_x, train_c), test_x)
  return _percent(classes[scores.argmax(axis=1)], test_y)


def _percent(predicted, labels):
  return 100.0 * float(np.mean(predicted == labels))
