// What holds the output of a request to a form: for each of its sequences a mask of the tokens that may come next, and one
// behind each of its guesses. Masks are made elsewhere and take their time; the scheduler is told when they are there
// (MaskReady) and draws no token without them.
#pragma once

#include <cstdint>
#include <span>

namespace serval {

struct Draft;

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // Engine thread; must not block or allocate. Sequence `index` has drawn `tokens`, the first as its output number
  // `place`, from 0, and goes on; `drafts`, a tree, may follow. Once for each step that drew, and not again before what is
  // made of it was told.
  virtual void drew(int index, std::span<const int32_t> tokens, int32_t place, std::span<const Draft> drafts) = 0;
  // Engine thread. Of the token that comes next, or of that behind one of the guesses, counted as those that were left:
  // [ceil(vocab / 32)], bit t set: token t may be drawn. It stays as it is until drew() says what came of it.
  virtual std::span<const uint32_t> mask(int index, int draft = -1) const = 0;
};

}  // namespace serval
