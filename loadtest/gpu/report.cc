#include "loadtest/gpu/report.h"

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace serval::gpu {

Report::Report(std::string path, boost::json::object header)
    : path_(std::move(path)), content_(std::move(header)) {
  content_["rows"] = boost::json::array();
}

void Report::add(boost::json::object row) {
  content_["rows"].get_array().push_back(std::move(row));
  if (path_.empty()) return;
  const std::string part = path_ + ".part";
  std::ofstream file(part);
  file << boost::json::serialize(content_) << "\n";
  file.close();
  if (!file) throw std::runtime_error("cannot write " + part);
  std::filesystem::rename(part, path_);
}

}  // namespace serval::gpu
