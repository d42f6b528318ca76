// Every schema of the library, in one place. Implementations register per device beside their kernels;
// fakes, autograd and autocast live in the Python package ssl_kernels.
#include "sslk.h"

STABLE_TORCH_LIBRARY(sslk, m) {
  m.def("qscore(Tensor h, Tensor discriminative, float eps=4.0, bool normalize=True, bool two_sided=False) -> Tensor");
  m.def(
      "qscore_backward(Tensor grad, Tensor h, Tensor discriminative, float eps, bool normalize, bool two_sided) -> "
      "Tensor");
  m.def(
      "qscore_counts(Tensor h, Tensor discriminative, float eps=4.0, bool normalize=True, bool two_sided=False) -> "
      "(Tensor, Tensor)");
  m.def("activating_mask(Tensor h, float eps=4.0, bool two_sided=False) -> Tensor");
  m.def("activation_counts(Tensor h, float eps=4.0, bool two_sided=False) -> (Tensor, Tensor)");
  m.def("row_moments(Tensor h) -> (Tensor, Tensor, Tensor)");
  m.def("column_l1(Tensor h, bool normalize=True) -> Tensor");
  m.def("column_l1_backward(Tensor grad, Tensor h, bool normalize) -> Tensor");
  m.def(
      "qscore_penalty(Tensor h, Tensor discriminative, float lambda1=1e-4, float lambda2=1e-4, float eps=4.0, "
      "bool normalize=True, bool two_sided=False, Tensor? alpha=None, Tensor? beta=None) -> (Tensor, Tensor, Tensor)");
  m.def(
      "qscore_penalty_backward(Tensor grad_q, Tensor grad_column_l1, Tensor h, Tensor discriminative, float eps, "
      "bool normalize, bool two_sided) -> Tensor");
  m.def(
      "masked_variants(Tensor images, Tensor? foreground, float[] mean, float[] std, int[] variants, "
      "float? radius=None, ScalarType? dtype=None) -> Tensor");
  m.def("circular_mask(int height, int width, float? radius=None) -> Tensor");
  m.def("heatmap_iou(Tensor heat, Tensor mask, float threshold=0.0) -> Tensor");
  m.def("linear_cka(Tensor x, Tensor y, bool debiased=True) -> Tensor");
  m.def("linear_cka_backward(Tensor grad, Tensor x, Tensor y, bool debiased) -> (Tensor, Tensor)");
  m.def("cka_matrix(Tensor x, bool debiased=True) -> Tensor");
  m.def("cka_matrix_backward(Tensor grad, Tensor x, bool debiased) -> Tensor");
  m.def("cca_matrix(Tensor x, float? rtol=None, float ridge=0.0) -> (Tensor, Tensor)");
  m.def("kmeans_assign(Tensor x, Tensor centroids) -> (Tensor, Tensor)");
  m.def(
      "sparse_softmax_sgd_(Tensor(a!) weight, Tensor(b!) bias, Tensor(c!) weight_velocity, Tensor(d!) bias_velocity, "
      "Tensor columns, Tensor offsets, Tensor target, Tensor index, float learning_rate, float momentum=0.0, "
      "float weight_decay=0.0) -> Tensor");
}
