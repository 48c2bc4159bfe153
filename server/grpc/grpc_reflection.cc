#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>
#include <vector>

#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1/reflection.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "serval/v1/inference.pb.h"
#include "server/grpc/grpc_unary.h"

namespace serval {
namespace {

using google::protobuf::FileDescriptor;
// The two versions have the same bytes: one reads and writes both.
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

constexpr size_t kMaxUnsentBytes = 64 << 10;  // of answers, before a question is refused

const google::protobuf::DescriptorPool& pool() {
  return *google::protobuf::DescriptorPool::generated_pool();
}

// The files of the services; naming a message of each also keeps it in the program.
std::vector<const FileDescriptor*> served_files() {
  return {v1::GenerateRequest::descriptor()->file(), grpc::health::v1::HealthCheckRequest::descriptor()->file(),
          grpc::reflection::v1::ServerReflectionRequest::descriptor()->file(),
          grpc::reflection::v1alpha::ServerReflectionRequest::descriptor()->file()};
}

void add_file(const FileDescriptor* file, std::set<const FileDescriptor*>& seen, ServerReflectionResponse& to) {
  if (!seen.insert(file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  to.mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) add_file(file->dependency(i), seen, to);
}

void set_error(GrpcCode code, const char* message, ServerReflectionResponse& to) {
  to.mutable_error_response()->set_error_code(static_cast<int>(code));
  to.mutable_error_response()->set_error_message(message);
}

void answer_file(const FileDescriptor* file, ServerReflectionResponse& to) {
  std::set<const FileDescriptor*> seen;
  file ? add_file(file, seen, to) : set_error(GrpcCode::kNotFound, "There is nothing of that name.", to);
}

ServerReflectionResponse answer(const ServerReflectionRequest& request) {
  ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case ServerReflectionRequest::kListServices:
      for (const std::string& name : grpc_services()) response.mutable_list_services_response()->add_service()->set_name(name);
      break;
    case ServerReflectionRequest::kFileByFilename:
      answer_file(pool().FindFileByName(request.file_by_filename()), response);
      break;
    case ServerReflectionRequest::kFileContainingSymbol:
      answer_file(pool().FindFileContainingSymbol(request.file_containing_symbol()), response);
      break;
    case ServerReflectionRequest::kFileContainingExtension:
      set_error(GrpcCode::kNotFound, "There are no extensions.", response);
      break;
    case ServerReflectionRequest::kAllExtensionNumbersOfType:
      if (pool().FindMessageTypeByName(request.all_extension_numbers_of_type())) {
        response.mutable_all_extension_numbers_response()->set_base_type_name(request.all_extension_numbers_of_type());
      } else {
        set_error(GrpcCode::kNotFound, "There is nothing of that name.", response);
      }
      break;
    case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      set_error(GrpcCode::kInvalidArgument, "The request asks for nothing.", response);
  }
  return response;
}

// A stream of questions, each answered when it comes.
GrpcCall::OnMessage begin(const std::shared_ptr<GrpcCall>& call) {
  return [weak = std::weak_ptr(call)](const std::shared_ptr<GrpcMessage>& message) {
    const std::shared_ptr<GrpcCall> open = weak.lock();
    if (!open) return;
    if (!message) return open->finish({});
    ServerReflectionRequest request;
    if (open->unsent_bytes() > kMaxUnsentBytes) {
      open->refuse(to_status({ErrorKind::kOverloaded, "unread_answers", "Read the answers before you ask further.", ""}));
    } else if (read_message(*open, *message, request)) {
      open->send(answer(request).SerializeAsString());
    }
  };
}

}  // namespace

std::vector<std::string> grpc_services() {
  std::vector<std::string> names;
  for (const FileDescriptor* file : served_files())
    for (int i = 0; i < file->service_count(); ++i) names.push_back(file->service(i)->full_name());
  return names;
}

GrpcMethods reflection_methods() {
  const GrpcMethod method{.needs_key = false, .begin = begin};
  return {{"grpc.reflection.v1.ServerReflection/ServerReflectionInfo", method},
          {"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", method}};
}

}  // namespace serval
