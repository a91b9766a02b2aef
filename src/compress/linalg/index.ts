export { choleskyInPlace, inverseTransposedLower, solveCholesky } from "./cholesky.js";
export { type Eigen, symmetricEigen } from "./eigen.js";
export { type InverseFactor, inverseDiagonal, inverseFactor, inverseHessian } from "./inverseFactor.js";
export {
  addProductTransposed,
  type MatrixView,
  mirrorLower,
  multiplyTransposed,
  transposed,
  view,
} from "./matmul.js";
export { quadraticTrace } from "./quadratic.js";
export { type Svd, svd } from "./svd.js";
