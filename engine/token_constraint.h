// What holds the output of a request to a form: for each of its sequences a mask of the tokens that may come next. Masks
// are made elsewhere and take their time; the scheduler is told when one is there (MaskReady) and draws no token
// without it.
#pragma once

#include <cstdint>
#include <span>

namespace serval {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Engine thread; must not block or allocate. Sequence `index` has drawn `token` as its output number `place`, from 0,
  // and goes on.
  virtual void drew(int index, int32_t token, int32_t place) = 0;
  // Engine thread. Of the token that comes next: [ceil(vocab / 32)], bit t set: token t may be drawn. It stays as it is
  // until drew() says what came of it.
  virtual std::span<const uint32_t> mask(int index) const = 0;
};

}  // namespace serval
